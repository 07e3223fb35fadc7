"""What is still there of a group whose leader is gone."""

import socket
import subprocess
import sys

from tasks.process import end_orphans, started_ticks

LISTENS_WITHOUT_ITS_FIRST_THREAD = """
import ctypes, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=time.sleep, args=(60,)).start()
print(server.getsockname()[1], flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_ended_with_its_group_and_frees_its_port() -> (
    None
):
    command = [sys.executable, "-c", LISTENS_WITHOUT_ITS_FIRST_THREAD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        while started_ticks(process.pid) is not None:  # until it looks like a zombie
            pass
        assert process.poll() is None
        end_orphans(process.pid)
        socket.create_server(("127.0.0.1", port)).close()
