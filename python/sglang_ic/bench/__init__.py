"""The load-test client: what does IndexCache do for my traffic?

`sglang.benchmark.serving` (what `python -m sglang.bench_serving` runs) makes the prompts, sends the
requests and times them. What it lacks is here: several servers ("arms") compared under the same
traffic, in interleaved rounds, with a control arm that shows the noise floor; scenarios as files;
ratios with intervals; and a report.

    cli, options -> session -> fleet, servers, endpoint   start arms, ask them who they are
                            -> runner, calibrate          what one block takes
                            -> traffic, load, recorder    upstream's datasets and load generator
                            -> plan                       what is given, and what was measured
           scenario, arms, schedule, record               plain values and decisions, no I/O
           metrics, compare                               what the numbers mean
    output -> document -> markdown, html, charts          how they look
    interrupts                                            no signal leaves a server or half a report
    mock_server                                           a server with known latencies, for tests
"""
