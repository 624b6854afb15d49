"""Where tasks run: what can be told before any of them starts."""

import socket

import pytest

from polyglot_jax.corpus import runner


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_told_at_once(scheme: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(ValueError, match=f"^--ray_address={address}: cannot be reached"),
            runner.runner("ray", ray_address=address),
        ):
            pass
