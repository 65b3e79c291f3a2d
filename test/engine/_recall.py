"""A question whose answer is in the context or nowhere."""


def recall(length: int) -> tuple[list[int], list[int]]:
    """Ids of a document that the bundled model was not trained on, of about `length` tokens, up to
    the second word of a list that stood before and is asked for again; and ids of the other words,
    at least 3. Past the 8K tokens that it was trained on, the model does not find the list, but
    goes on with one that it has begun."""
    from transformers import AutoTokenizer

    from sglang_ic.demo import bundled_model
    from sglang_ic.demo.documents import documents

    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    (document,) = documents("test", length=length, count=1)
    copies = (one for one in document.answers if one.task == "copy")
    copied = max(copies, key=lambda one: one.end - one.start)
    ids = tokenizer(document.text[: copied.start]).input_ids
    words = tokenizer(document.text[copied.start : copied.end], add_special_tokens=False).input_ids
    assert len(words) >= 5
    return ids + words[:2], words[2:]
