"""The load-test client: what does IndexCache do for my traffic?

`sglang.benchmark.serving` (what `python -m sglang.bench_serving` runs) makes the prompts, sends the
requests and times them. What it lacks is here: several servers ("arms") compared under the same
traffic, in interleaved rounds, with a control arm that shows the noise floor; scenarios as files;
ratios with intervals; and a report.

    cli -> session -> fleet, servers, endpoint start arms, ask them who they are
                   -> traffic, load, upstream  upstream's datasets and its load generator
           scenario, arms, schedule, record    plain values and decisions, no I/O
           metrics, compare                    what the numbers mean
           document -> markdown, html, charts  how they look
    mock_server                                a server with known latencies, to test all of this
"""
