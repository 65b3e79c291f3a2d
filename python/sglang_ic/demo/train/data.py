"""Training batches, made while training: batch `i` of a stage is the same in every run.

A batch holds one document per row, filled up with padding that no loss counts. Documents come from
worker processes through torch's DataLoader, in order, so a resumed run continues with the next one.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sglang_ic.demo.documents import training_document
from sglang_ic.demo.documents.bpe import encoder
from sglang_ic.demo.documents.document import test_document

PAD_ID = 2  # <|pad|>, as documents/bpe.py numbers the specials
BOS_ID = 0


class Documents(Dataset):
    """Document `i` of one length as int16 [2, length]: ids, and 1 where an answer stands.

    The first token is <|bos|>. One document in five asks its questions after the body, as the
    other splits do.
    """

    def __init__(self, name: str, length: int):
        self.name, self.length = name, length

    def __getitem__(self, index: int) -> np.ndarray:
        seed = f"train-{self.name}-{index}"
        at_end = index % 5 == 0 and self.length >= 1024
        make = test_document if at_end else training_document
        document = make(seed, seed, self.length - 1, encoder())
        row = np.zeros((2, self.length), dtype=np.int16)
        row[0] = PAD_ID
        row[0, 0] = BOS_ID
        row[0, 1 : 1 + len(document.input_ids)] = document.input_ids
        for answer in document.answers:
            row[1, 1 + answer.token_start : 1 + answer.token_end] = 1
        return row


class _Order:
    def __init__(self, first: int, stop: int):
        self.indices = range(first, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def batches(
    name: str, length: int, batch_size: int, first: int, stop: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches `first` to `stop`: ids [B, length] int64, answer mask [B, length] bool."""
    loader = DataLoader(
        Documents(name, length),
        batch_size=batch_size,
        sampler=_Order(first * batch_size, stop * batch_size),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for rows in loader:
        yield rows[:, 0].long(), rows[:, 1].bool()
