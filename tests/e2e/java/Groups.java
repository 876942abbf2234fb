// The Java client in groups, for test_members.py, which says what the verbs read and print; run from its source:
// java -cp 'JARS/*' Groups.java feed BROKER TOPIC | member BROKER TOPIC GROUP | group BROKER TOPIC GROUP COUNT | admin BROKER TOPIC

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Groups {
    private static final int PARTITIONS = 4;
    private static final long SECONDS_MAX = 60;
    private static final Duration COMMIT_MAX = Duration.ofSeconds(2);

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[1]);
        settings.put("reconnect.backoff.max.ms", "200");
        String topic = arguments[2];
        switch (arguments[0]) {
            case "feed" -> feed(settings, topic);
            case "member" -> member(settings, topic, arguments[3]);
            case "group" -> group(settings, topic, arguments[3], Integer.parseInt(arguments[4]));
            case "admin" -> admin(settings, topic);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void feed(Properties settings, String topic) throws IOException {
        settings.put("linger.ms", "5");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                int number = Integer.parseInt(line);
                byte[] value = line.getBytes(StandardCharsets.UTF_8);
                producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, value), (answer, error) -> {
                    if (error == null) {
                        System.out.println(number + " " + answer.offset());
                    } else {
                        error.printStackTrace();
                    }
                });
            }
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Properties settings, String topic, String group) {
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("session.timeout.ms", "3000");
        settings.put("heartbeat.interval.ms", "300");
        settings.put("max.partition.fetch.bytes", "10000000");
        var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    private static void member(Properties settings, String topic, String group) {
        AtomicBoolean ended = new AtomicBoolean();
        Thread waiting = new Thread(() -> {
            try {
                System.in.transferTo(System.out);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            ended.set(true);
        });
        waiting.setDaemon(true);
        waiting.start();
        try (var consumer = consumer(settings, topic, group)) {
            while (!ended.get()) {
                var records = consumer.poll(Duration.ofMillis(100));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    System.out.println(record.partition() + " " + record.offset() + " " + new String(record.value(), StandardCharsets.UTF_8));
                }
                if (!records.isEmpty()) {
                    commit(consumer);
                }
            }
            commit(consumer);
        }
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync(COMMIT_MAX);
        } catch (KafkaException error) {
            // A rebalance came between, or the broker is gone: then it is seen again.
            System.err.println(error);
        }
    }

    private static void group(Properties settings, String topic, String group, int count) {
        settings.put("max.poll.records", String.valueOf(count));
        List<String> printed = new ArrayList<>();
        try (var consumer = consumer(settings, topic, group)) {
            long deadline = System.nanoTime() + Duration.ofSeconds(SECONDS_MAX).toNanos();
            while (printed.size() < count) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(printed.size() + " records");
                }
                consumer.poll(Duration.ofSeconds(1)).forEach(record -> printed.add(text(record)));
            }
            consumer.commitSync();
        }
        printed.forEach(System.out::println);
    }

    private static void admin(Properties settings, String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "1234")))).all().get();
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            System.out.println("partitions=" + admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
            var alter = new AlterConfigOp(new ConfigEntry("max.message.bytes", "5000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(alter))).all().get();
            var configs = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            System.out.println("retention.ms=" + configs.get("retention.ms").value());
            System.out.println("max.message.bytes=" + configs.get("max.message.bytes").value());
            var groups = admin.listGroups().all().get();
            System.out.println("groups=" + groups.stream().map(found -> found.groupId() + " " + found.groupState().get()).collect(Collectors.joining(",")));
            var described = admin.describeConsumerGroups(List.of(topic)).all().get().get(topic);
            System.out.println("described=" + described.groupState() + " " + described.members().size() + " " + described.coordinator().id());
            Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get();
            OffsetAndMetadata committed = offsets.values().iterator().next();
            System.out.println("committed=" + committed.offset() + " " + committed.metadata());
            // As a user interface does it for the lag of each group.
            var ends = admin.listOffsets(offsets.keySet().stream().collect(Collectors.toMap(at -> at, at -> OffsetSpec.latest()))).all().get();
            System.out.println("ends=" + ends.values().stream().map(end -> String.valueOf(end.offset())).collect(Collectors.joining(",")));
            admin.alterConsumerGroupOffsets(topic, Map.of(offsets.keySet().iterator().next(), new OffsetAndMetadata(3))).all().get();
            System.out.println("altered=" + admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get().values().iterator().next().offset());
            admin.deleteConsumerGroupOffsets(topic, offsets.keySet()).all().get();
            System.out.println("offsets left=" + admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get().size());
            admin.deleteConsumerGroups(List.of(topic)).all().get();
            System.out.println("groups left=" + admin.listGroups().all().get().size());
            var places = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
            System.out.println("log dirs=" + places.size() + " with " + places.values().iterator().next().replicaInfos().size() + " replicas");
            System.out.println("broker configs=" + !admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.BROKER, "1"))).all().get().isEmpty());
            admin.deleteTopics(List.of(topic)).all().get();
            System.out.println("topics left=" + String.join(",", admin.listTopics().names().get()));
        }
    }

    private static String text(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder out = new StringBuilder();
        out.append(record.partition()).append(' ').append(record.offset()).append(' ').append(record.timestamp());
        out.append(' ').append(word(record.key())).append(' ').append(word(record.value()));
        for (Header header : record.headers()) {
            out.append(' ').append(word(header.key().getBytes(StandardCharsets.UTF_8))).append('=').append(word(header.value()));
        }
        return out.toString();
    }

    private static String word(byte[] bytes) {
        return bytes == null ? "-" : "x" + HexFormat.of().formatHex(bytes);
    }
}
