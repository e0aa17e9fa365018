"""Serves Neutron's API on 127.0.0.1; run by `tests.neutron` with the Python of Neutron's own virtualenv.

    python neutron_api.py PORT DATABASE     with OS_NEUTRON_CONFIG_DIR and OS_NEUTRON_CONFIG_FILES, as in production

The tables of DATABASE (a URL) are made from Neutron's models if they are not there, as its own tests do: to migrate
through twelve years of releases takes half a minute. It is Neutron's WSGI application in threads, and its listener for
agents' reports beside it in the same process. Each line on standard input is an agent's state (JSON): it is reported
over RabbitMQ as that agent would, and a line is printed when the server has it. The process ends with its standard
input.
"""

import json
import os
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

PORT, DATABASE = int(sys.argv.pop(1)), sys.argv.pop(1)

from neutron.agent.rpc import PluginReportStateAPI  # noqa: E402 (Neutron reads sys.argv when it is imported)
from neutron.conf.agent.common import register_agent_state_opts_helper  # noqa: E402
from neutron.db.migration.models import head  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402

head.get_metadata().create_all(create_engine(DATABASE))

from neutron.wsgi.api import application  # noqa: E402
from neutron_lib import context  # noqa: E402
from neutron_lib.agent import topics  # noqa: E402
from neutron_lib.plugins import directory  # noqa: E402
from oslo_config import cfg  # noqa: E402


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Neutron has a log of its own."""


def report() -> None:
    register_agent_state_opts_helper(cfg.CONF)
    api = PluginReportStateAPI(topics.REPORTS)
    for line in sys.stdin:
        api.report_state(context.get_admin_context_without_session(), json.loads(line), use_call=True)
        print("reported", flush=True)
    os._exit(0)


directory.get_plugin().start_rpc_state_reports_listener()
threading.Thread(target=report, daemon=True).start()
make_server("127.0.0.1", PORT, application, Server, Handler).serve_forever()
