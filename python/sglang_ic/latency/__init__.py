"""How long a prompt and a token take, arm against arm: `python -m sglang_ic.latency`.

    plan.py -> schedule.py -> run.py -> journal.py -> document.py -> report.py, chart.py

`run.py` drives servers (launch.py, serve.py) over HTTP (client.py, control.py); everything that is
decided or computed (plan, schedule, timing, fit, trace, document, report) is pure. serve.py and
in_scheduler.py run inside the servers, on the patched SGLang and on upstream's own.
"""
