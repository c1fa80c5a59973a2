"""A participant in standard-library Python: it wraps gifts, each once, and can unwrap them again."""
import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

PAPER = 10  # sheets; then wrapping is refused
db = sqlite3.connect(sys.argv[2] if len(sys.argv) > 2 else "gift_wrap.db", isolation_level=None)
db.execute("create table if not exists effect (id text primary key, body text, status integer, answer text)")
db.execute("create table if not exists gift (number integer primary key autoincrement, effect text unique, paper text)")


def known(effect, body=None):
    row = db.execute("select body, status, answer from effect where id = ?", (effect,)).fetchone()
    if row and body and row[0] and row[0] != body:
        return 422, '{"detail": "this id came with another body"}'  # a conflict, no refusal: nothing changes
    return row and row[1:]


def remember(effect, body, status, answer):
    db.execute("insert into effect values (?, ?, ?, ?)", (effect, body, status, json.dumps(answer)))
    return status, json.dumps(answer)


def wrap(effect, body, command):
    if db.execute("select count(*) from gift").fetchone()[0] >= PAPER:
        return remember(effect, body, 409, {"code": "gift_wrap.no_paper"})
    gift = db.execute("insert into gift (effect, paper) values (?, ?)", (effect, command["with"]["paper"]))
    return remember(effect, body, 200, {"tag": f"gift-{gift.lastrowid}"})


def unwrap(effect, body, command):
    wrapped = command["of"]["effect_id"]
    db.execute("delete from gift where effect = ?", (wrapped,))
    if not known(wrapped):  # the undo came first: whatever comes late, with any body, must find this
        remember(wrapped, None, 409, {"code": "released_before"})
    return remember(effect, body, 200, {})


class Participant(BaseHTTPRequestHandler):
    timeout = 5  # seconds: a caller that sends nothing must not keep the others out

    def do_POST(self):
        command = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = {"/wrap": wrap, "/unwrap": unwrap}.get(self.path)
        if not action:
            return self.answer(404, "{}")
        effect, of = command["effect_id"], command.get("of") or {}
        body = json.dumps([self.path, command["with"], of.get("effect_id")], sort_keys=True)
        with db:  # the effect and its record: both, or, when anything goes wrong in here, none
            db.execute("begin immediate")
            answer = known(effect, body) or action(effect, body, command)
        self.answer(*answer)

    def do_GET(self):  # what became of it? 404: never seen
        self.answer(*(known(unquote(self.path.removeprefix("/effects/"))) or (404, "{}")))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


server = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7800), Participant)
print(f"gift_wrap listens on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
