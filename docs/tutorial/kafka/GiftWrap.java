// A participant of another team, over Kafka: it wraps gifts, each once, and can unwrap them again.
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;

class GiftWrap {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Map<String, ObjectNode> effects = new HashMap<>(); // by effect id: `body`, and the `answer` it got
    static Path file;
    static int gifts;

    /** One line, on disk before anybody is answered: the effect and its record are the same. */
    static ObjectNode remember(String effect, JsonNode body, String answer) throws Exception {
        ObjectNode known = JSON.createObjectNode().put("id", effect);
        known.set("body", body);
        known.set("answer", JSON.readTree(answer));
        Files.writeString(file, known + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND, StandardOpenOption.DSYNC);
        effects.put(effect, known);
        return (ObjectNode) known.get("answer");
    }

    static ObjectNode decide(JsonNode command) throws Exception {
        String effect = command.get("effect_id").asText(), undone = command.at("/of/effect_id").asText();
        ObjectNode known = effects.get(effect);
        if (command.get("kind").asText().equals("ask"))
            return known == null ? JSON.createObjectNode().put("verdict", "never_seen") : (ObjectNode) known.get("answer");
        JsonNode body = JSON.createArrayNode().add(command.get("action")).add(command.get("with")).add(undone);
        if (known != null && (known.get("body").isNull() || known.get("body").equals(body)))
            return (ObjectNode) known.get("answer");
        if (known != null) // a conflict: nothing changes
            return JSON.createObjectNode().put("verdict", "unknown").put("reason", "this id came with another body");
        if (command.get("kind").asText().equals("undo")) {
            if (!effects.containsKey(undone)) // the undo came first: whatever comes late must find this
                remember(undone, null, "{\"verdict\":\"refused\",\"code\":\"released_before\"}");
            return remember(effect, body, "{\"verdict\":\"done\",\"data\":{}}");
        }
        if (command.at("/with/paper").asText().equals("none"))
            return remember(effect, body, "{\"verdict\":\"refused\",\"code\":\"gift_wrap.no_paper\"}");
        return remember(effect, body, "{\"verdict\":\"done\",\"data\":{\"tag\":\"gift-" + ++gifts + "\"}}");
    }

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        file = Path.of(arguments.length > 2 ? arguments[2] : "gift_wrap.ndjson");
        if (Files.exists(file))
            for (String line : Files.readAllLines(file)) {
                ObjectNode known = (ObjectNode) JSON.readTree(line);
                effects.put(known.get("id").asText(), known);
                if (known.at("/answer/data").has("tag")) gifts++;
            }
        String text = "org.apache.kafka.common.serialization.StringSerializer";
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", arguments[0], "group.id", topic,
            "enable.auto.commit", "false", "auto.offset.reset", "earliest", "key.serializer", text, "value.serializer", text,
            "key.deserializer", text.replace("Serializer", "Deserializer"), "value.deserializer", text.replace("Serializer", "Deserializer")));
        try (Admin admin = Admin.create(settings)) {
            if (!admin.listTopics().names().get().contains(topic))
                admin.createTopics(List.of(new NewTopic(topic, Optional.of(3), Optional.empty()))).all().get();
        }
        try (var consumer = new KafkaConsumer<String, String>(settings); var producer = new KafkaProducer<String, String>(settings)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> gone) { }
                public void onPartitionsAssigned(Collection<TopicPartition> mine) { System.out.println("gift_wrap listens to " + topic); }
            });
            while (true) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    Map<String, String> headers = new HashMap<>();
                    record.headers().forEach(header -> headers.put(header.key(), new String(header.value())));
                    JsonNode command = JSON.readTree(record.value());
                    ObjectNode answer = decide(command).deepCopy().put("effect_id", command.get("effect_id").asText());
                    var reply = new ProducerRecord<>(headers.get("ce_replytopic"), Integer.valueOf(headers.get("ce_replypartition")),
                        headers.get("ce_replykey"), answer.toString());
                    Map.of("ce_specversion", "1.0", "ce_type", "endstate.reply", "ce_source", "/gift_wrap", "ce_id", headers.get("ce_id"))
                        .forEach((name, value) -> reply.headers().add(name, value.getBytes()));
                    producer.send(reply).get(); // fails when it is not taken: started again, the command is read again
                }
                consumer.commitSync(); // only now: until here commands would come again
            }
        }
    }
}
