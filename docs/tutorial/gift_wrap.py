"""A participant in standard-library Python: it wraps gifts, each once, and can unwrap them again."""
import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

PAPER = 100  # sheets; then wrapping is refused
db = sqlite3.connect(sys.argv[2] if len(sys.argv) > 2 else "gift_wrap.db", isolation_level=None)
db.execute("create table if not exists effect (id text primary key, status integer not null, answer text not null)")
db.execute("create table if not exists gift (id text primary key, paper text not null)")


def known(effect):
    return db.execute("select status, answer from effect where id = ?", (effect,)).fetchone()


def remember(effect, status, answer):
    db.execute("insert into effect values (?, ?, ?)", (effect, status, json.dumps(answer)))
    return status, json.dumps(answer)


def wrap(effect, command):
    if db.execute("select count(*) from gift").fetchone()[0] >= PAPER:
        return remember(effect, 409, {"code": "gift_wrap.no_paper"})
    db.execute("insert into gift values (?, ?)", (effect, command["with"]["paper"]))
    return remember(effect, 200, {"tag": "gift-" + effect[:8]})


def unwrap(effect, command):
    wrapped = command["of"]["effect_id"]
    db.execute("delete from gift where id = ?", (wrapped,))
    if not known(wrapped):  # the undo came first: whatever comes late must find this
        remember(wrapped, 409, {"code": "released_before"})
    return remember(effect, 200, {})


class Participant(BaseHTTPRequestHandler):
    def do_POST(self):
        effect = self.headers["Idempotency-Key"]
        command = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = {"/wrap": wrap, "/unwrap": unwrap}.get(self.path)
        if not action:
            return self.answer(404, "{}")
        db.execute("begin immediate")  # the effect and its record: both, or none
        answer = known(effect) or action(effect, command)
        db.execute("commit")
        self.answer(*answer)

    def do_GET(self):  # what became of it? 404: never seen
        self.answer(*(known(self.path.removeprefix("/effects/")) or (404, "{}")))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


server = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7800), Participant)
print(f"gift_wrap listens on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
