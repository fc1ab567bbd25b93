"""chex's variants run under pmap on one device too, where chex would skip them."""

import chex  # noqa: F401, defines the flag
from absl import flags

flags.FLAGS["chex_skip_pmap_variant_if_single_device"].value = False
