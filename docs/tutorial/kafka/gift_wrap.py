"""A participant of another team, over Kafka: it wraps gifts, each once, and can unwrap them again."""
import json
import sqlite3
import sys

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

PAPER = 100  # sheets; then wrapping is refused, as it is without paper
brokers, topic = sys.argv[1:3]
db = sqlite3.connect(sys.argv[3] if len(sys.argv) > 3 else "gift_wrap.db", isolation_level=None)
db.execute("create table if not exists effect (id text primary key, body text, answer text)")
db.execute("create table if not exists gift (number integer primary key autoincrement, effect text unique, paper text)")


def known(effect, body=None):
    row = db.execute("select body, answer from effect where id = ?", (effect,)).fetchone()
    if row and body and row[0] and row[0] != body:
        return {"verdict": "unknown", "reason": "this id came with another body"}  # a conflict: nothing changes
    return row and json.loads(row[1])


def remember(effect, body, **answer):
    db.execute("insert into effect values (?, ?, ?)", (effect, body, json.dumps(answer)))
    return answer


def wrap(effect, body, command):
    if command["with"]["paper"] == "none" or db.execute("select count(*) from gift").fetchone()[0] >= PAPER:
        return remember(effect, body, verdict="refused", code="gift_wrap.no_paper")
    gift = db.execute("insert into gift (effect, paper) values (?, ?)", (effect, command["with"]["paper"]))
    return remember(effect, body, verdict="done", data={"tag": f"gift-{gift.lastrowid}"})


def unwrap(effect, body, command):
    wrapped = command["of"]["effect_id"]
    db.execute("delete from gift where effect = ?", (wrapped,))
    if not known(wrapped):  # the undo came first: whatever comes late, with any body, must find this
        remember(wrapped, None, verdict="refused", code="released_before")
    return remember(effect, body, verdict="done", data={})


def decide(command):
    effect, of = command["effect_id"], command.get("of") or {}
    if command["kind"] == "ask":
        return known(effect) or {"verdict": "never_seen"}
    body = json.dumps([command["action"], command["with"], of.get("effect_id")], sort_keys=True)
    with db:  # the effect and its record: both, or, when anything goes wrong in here, none
        db.execute("begin immediate")
        return known(effect, body) or {"wrap": wrap, "unwrap": unwrap}[command["action"]](effect, body, command)


admin = AdminClient({"bootstrap.servers": brokers})
if topic not in admin.list_topics(timeout=30).topics:
    admin.create_topics([NewTopic(topic, 3)])[topic].result(30)
consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False})
producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
consumer.subscribe([topic], on_assign=lambda *_: print(f"gift_wrap listens to {topic}", flush=True))
while True:
    record = consumer.poll(1.0)
    if record is None or record.error():
        continue
    headers = {name: value.decode() for name, value in record.headers()}
    command = json.loads(record.value())
    reply = {"effect_id": command["effect_id"], **decide(command)}
    said = {"ce_specversion": "1.0", "ce_type": "endstate.reply", "ce_source": "/gift_wrap", "ce_id": headers["ce_id"]}
    producer.produce(headers["ce_replytopic"], json.dumps(reply), headers["ce_replykey"],
                     int(headers["ce_replypartition"]), headers=said)
    if producer.flush(30):
        sys.exit("the reply was not taken; started again, the command is read again")
    consumer.commit(record, asynchronous=False)  # only now: until here it would come again
