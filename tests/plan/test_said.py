"""What is caught of stderr, and what is not kept from a person."""

import os

from polyglot_jax.plan.said import what_compilers_say, worth_telling

NO_GPU = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795887701.926101   22509 cudart_stub.cc:31] Could not find cuda drivers on your machine
"""


def test_what_is_written_to_the_descriptor_is_caught() -> None:
    with what_compilers_say() as said:
        os.write(2, b"by C++\n")
    assert said == ["by C++\n"]


def test_that_no_gpu_is_here_is_not_worth_telling_and_all_else_is() -> None:
    assert worth_telling(NO_GPU + NO_GPU) == ""
    error = "E0000 plugin.cc:7] cannot load libnvrtc.so\n"
    assert worth_telling(NO_GPU + error + NO_GPU) == error
