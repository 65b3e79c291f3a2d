"""What the command lines of our tools share."""

import pytest

from sglang_ic.command_line import masked


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--tp 8", "--tp 8"),
        ("--api-key k --tp 8", "--api-key *** --tp 8"),
        ("--api-key=k --tp 8", "--api-key=*** --tp 8"),
        ("--admin-api-key a --api-key k", "--admin-api-key *** --api-key ***"),
        ("--api-key --api-key --tp 8", "--api-key *** --tp 8"),  # a strange key is one too
        ("--ssl-keyfile-password=p=q", "--ssl-keyfile-password=***"),
        ("--tp 8 --api-key", "--tp 8 --api-key"),
    ],
)
def test_keys_and_passwords_are_masked(words, shown):
    assert masked(words.split()) == shown.split()
