"""What the platform tells of itself, for those who watch it (docs/observing.md).

logs.py        what a line says besides its text            inbound.py     around every request and socket
metrics.py     what is counted as it happens                background.py  around every job
readings.py    numbers read when a scrape asks              traces.py      spans, where OpenTelemetry is wanted
health.py      /healthz, /readyz, /metrics                  reports.py     errors, by mail and to Sentry
alive.py       signs of life of jobs and scanner            redaction.py   what Django's own reports leave out
models.py      from where admins acted
"""
