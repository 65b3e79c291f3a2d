"""What the command lines of our tools share."""

import pytest

from sglang_ic.command_line import command, masked


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


def test_a_command_in_a_report_can_be_typed_again_and_tells_no_secret():
    told = command("sglang_ic.evaluate", ["--data", "my file.txt", "--", "--api-key", "k"])
    assert told == "python -m sglang_ic.evaluate --data 'my file.txt' -- --api-key '***'"
