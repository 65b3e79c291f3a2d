"""Token ids of the test models' byte-level vocabulary. Constants only.

Ids 0..255 are the byte values themselves; the specials follow. The size, 320 = 5 x 64, is one that
padding for tensor parallelism leaves alone.
"""

NUM_BYTES = 256
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VOCAB_SIZE = 320
# Every id has a name, or sampling one from an untrained model would detokenize to nothing.
RESERVED = tuple(
    f"<|reserved_{i}|>" for i in range(VOCAB_SIZE - NUM_BYTES - len((BOS, EOS, PAD, *ROLES)))
)
SPECIALS = (BOS, EOS, PAD, *ROLES, *RESERVED)
BOS_ID, EOS_ID, PAD_ID = (NUM_BYTES + SPECIALS.index(name) for name in (BOS, EOS, PAD))

assert NUM_BYTES + len(SPECIALS) == VOCAB_SIZE
