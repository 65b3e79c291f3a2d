"""A header is complete or refused by name."""

import pytest
from _synthetic import HEADER

from sglang_ic.fork import ForkError
from sglang_ic.fork.header import parse_header, template
from sglang_ic.fork.patchfile import Patch


def parse(header: str):
    return parse_header(Patch("a-b.patch", header.encode(), (), b""))


def test_reads_every_part():
    header = parse(
        "From 0000 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\n"
        + HEADER.replace("change things", "change\n things")
        .replace("it is a test.", "it is\na test: yes.\n\nStill.")
        .replace("Drop-When: never", "Drop-When: never,\n ever")
        + "Guarded-By: test/a.py::T::test_b, test/c.py::test_d\n"[:0]
    )
    assert header.subject == "model: change things"
    assert header.sections["Why not a plugin"] == "it is a test: yes. Still."
    assert header.drop_when == "never, ever"
    assert header.guarded_by == ("test/fork/test_model.py::test_guard",)


def test_guards_may_repeat_and_name_methods():
    lines = "Guarded-By: test/a.py::T::test_b, test/c.py::test_d\nGuarded-By: test/e.py::test_f"
    guards = parse(
        HEADER.replace("Guarded-By: test/fork/test_model.py::test_guard", lines)
    ).guarded_by
    assert guards == ("test/a.py::T::test_b", "test/c.py::test_d", "test/e.py::test_f")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("Subject: model: change things\n", "", "lacks Subject"),
        ("Why: a test.\n", "", "lacks `Why: ...`"),
        ("Why not a plugin: it is a test.", "Why not a plugin:", "lacks `Why not a plugin: ...`"),
        ("How: one line.\n", "", "lacks `How: ...`"),
        ("Forwarded: no\n", "", "lacks Forwarded"),
        ("Applied-Upstream: no\n", "", "lacks Applied-Upstream"),
        ("Drop-When: never\n", "", "lacks Drop-When"),
        ("Guarded-By: test/fork/test_model.py::test_guard\n", "", "lacks Guarded-By"),
        ("Drop-When: never", "Drop-When: TODO", "Drop-When is still a TODO"),
        ("Drop-When: never\n", "Drop-When: never\nDrop-When: ever\n", "Drop-When twice"),
        ("How: one", "How: one.\nHow: two", "'How' twice"),
        ("Drop-When: never", "Drop when never", "'Drop when never' is no trailer"),
        ("test/fork/test_model.py::test_guard", "by hand", "Guarded-By 'by hand': must be"),
    ],
)
def test_incomplete_header_is_refused(old, new, message):
    assert old in HEADER
    with pytest.raises(ForkError, match=f"^a-b.patch: .*{message}"):
        parse(HEADER.replace(old, new))


def test_template_has_every_part_to_fill_in():
    text = template("dsa-carry-topk.patch").decode()
    assert "Subject: dsa: carry topk\n" in text
    with pytest.raises(ForkError, match="TODO"):
        parse(text)
    parse(text.replace("Guarded-By: TODO", "Guarded-By: test/a.py::test_b").replace("TODO", "done"))
