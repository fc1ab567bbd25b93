import jax
import pytest

from jaxnn import compilation_cache

FOLDER = "jax_compilation_cache_dir"


@pytest.fixture
def settings(monkeypatch):
    """What was set, instead of setting it."""
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    return found


def with_folder(monkeypatch, folder):
    monkeypatch.setattr(type(jax.config), FOLDER, property(lambda config: folder))


class TestKeepCompiled:
    def test_a_folder_of_its_own(self, settings, monkeypatch):
        monkeypatch.setenv("JAXNN_CACHE", "/somewhere")
        with_folder(monkeypatch, None)
        compilation_cache.keep_compiled()
        assert settings[FOLDER] == "/somewhere/xla"

    def test_a_folder_that_was_given_stays(self, settings, monkeypatch):
        with_folder(monkeypatch, "/given")
        compilation_cache.keep_compiled()
        assert FOLDER not in settings
