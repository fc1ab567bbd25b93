"""One's own training program, recorded and judged; see README, "Bring your own"."""

from parity.own.step import judge_step as judge_step
