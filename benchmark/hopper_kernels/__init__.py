"""Times of the indexer's steps on one Hopper GPU, upstream's and ours, without a server.

    PYTHONPATH=python:benchmark python -m hopper_kernels --output FILE

Needs the CUDA environment (SGLang, DeepGEMM, sgl-kernel). Shapes are those of one layer and one
chunk of prefill, one request: 8,192 queries at the end of a context, 32 index heads of 128, 2,048
selected keys, pages of 64 tokens; of one decode step; and of sparse attention, which all layers
have. Scores come from random keys and queries through DeepGEMM, so their distribution is not made
up. Each time is the median of runs between CUDA events. `floor` is the least that the step's bytes
(at the measured copy bandwidth) or products (at the datasheet's rate) take. A step that cannot run
is listed with the reason. The last line is JSON.

shapes.py      the sizes of the model
chunk.py       the inputs of a chunk
timing.py      a row for each step, measured until the deadline
scores.py      prefill: scores, and scores and top-k in one pass
selection.py   prefill: top-k, of one layer and chunk
attention.py   sparse attention, padded or not
decode.py      one step of decode
"""
