import pytest

from tests.engines.server.test_engine import Server
from tests.engines.wire import server_engine


@pytest.fixture
def answering():
    """Start a server for an answering function of (handler, what was asked): (server, engine)."""
    started = []

    def start(answer, **settings):
        server = Server(lambda handler, prompt, number: answer(handler, server.bodies[-1]))
        started.append(server)
        settings = {"backoff": 0.001, "timeout": 5.0, "retries": 2, "concurrency": 1, **settings}
        return server, server_engine(server.url, **settings)

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()
