"""gunicorn's settings as an origin; they are read by gunicorn itself.

The threaded worker is the plain one that keeps connections alive.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

bind = f"127.0.0.1:{os.environ['ORIGIN_PORT']}"
workers = 1
threads = 16
worker_class = "application.Worker"
worker_tmp_dir = os.environ["ORIGIN_FOLDER"]
keepalive = 60
backlog = 512
graceful_timeout = 1
# What is longer is the proxy's to refuse.
limit_request_line = 8190
limit_request_field_size = 0
