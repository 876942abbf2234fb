// The Java client of Kafka at work for test_java.py; run from its source: java -cp 'JARS/*' Client.java produce|produce-once|administer|consume BROKER TOPIC [CODEC]
//
// Records go in and out as lines of words: bytes as x and hexadecimal digits, null as -.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Client {
    private static final long SECONDS_MAX = 60;

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[1]);
        switch (arguments[0]) {
            case "produce" -> {
                settings.put("enable.idempotence", "false");
                produce(settings, arguments[2], arguments[3]);
            }
            // Idempotent, as the client is by default, in many small requests.
            case "produce-once" -> {
                settings.put("batch.size", "200");
                settings.put("reconnect.backoff.ms", "10");
                settings.put("retry.backoff.ms", "10");
                produce(settings, arguments[2], arguments[3]);
            }
            case "administer" -> administer(settings, arguments[2]);
            case "consume" -> consume(settings, arguments[2]);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** Sends the lines of standard input to partition 0: "timestamp key value name=value...". Prints the offset of each. */
    private static void produce(Properties settings, String topic, String codec) throws Exception {
        settings.put("acks", "all");
        settings.put("linger.ms", "5");
        settings.put("compression.type", codec);
        settings.put("max.request.size", "10000000");
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] fields = line.split(" ");
                var record = new ProducerRecord<>(topic, 0, Long.valueOf(fields[0]), bytes(fields[1]), bytes(fields[2]));
                for (int index = 3; index < fields.length; index++) {
                    String[] header = fields[index].split("=", 2);
                    record.headers().add(new String(bytes(header[0]), StandardCharsets.UTF_8), bytes(header[1]));
                }
                answers.add(producer.send(record));
            }
            producer.flush();
            for (Future<RecordMetadata> answer : answers) {
                System.out.println(answer.get().offset());
            }
        }
    }

    /** Administers a topic of 2 partitions with 10 records in partition 0, and deletes it. Prints what was told, as name=value. */
    private static void administer(Properties settings, String topic) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(settings)) {
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            System.out.println("partitions=" + described.partitions().size());
            var retention = new AlterConfigOp(new ConfigEntry("retention.ms", "1234"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(retention))).all().get();
            var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            for (String name : List.of("retention.ms", "segment.ms")) {
                System.out.println(name + "=" + config.get(name).value() + " " + config.get(name).source());
            }
            var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(3))).lowWatermarks();
            System.out.println("low watermark=" + deleted.get(partition).get().lowWatermark());
            System.out.println("nodes=" + admin.describeCluster().nodes().get().size());
            var places = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).values();
            var replica = places.iterator().next().replicaInfos().get(partition);
            System.out.println("size is known=" + (replica.size() > 0));
            var producers = admin.describeProducers(List.of(partition)).all().get().get(partition);
            System.out.println("producers=" + producers.activeProducers().size());
            System.out.println("reassignments=" + admin.listPartitionReassignments().reassignments().get().size());
            System.out.println("quotas=" + admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().size());
            var election = admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get().get(partition);
            System.out.println("election=" + election.map(error -> error.getClass().getSimpleName()).orElse("none"));
            System.out.println("topics=" + String.join(",", admin.listTopics().names().get()));
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(described.topicId()))).all().get();
            System.out.println("deleted by id=" + admin.listTopics().names().get().isEmpty());
        }
    }

    /** Prints the records of the assigned partition 0 from its beginning to its end, each as "offset timestamp key value name=value...". */
    private static void consume(Properties settings, String topic) {
        TopicPartition partition = new TopicPartition(topic, 0);
        StringBuilder out = new StringBuilder();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + Duration.ofSeconds(SECONDS_MAX).toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("at " + consumer.position(partition) + " of " + end);
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    out.append(record.offset()).append(' ').append(record.timestamp());
                    out.append(' ').append(text(record.key())).append(' ').append(text(record.value()));
                    for (Header header : record.headers()) {
                        out.append(' ').append(text(header.key().getBytes(StandardCharsets.UTF_8)));
                        out.append('=').append(text(header.value()));
                    }
                    out.append('\n');
                }
            }
        }
        System.out.print(out);
    }

    private static byte[] bytes(String text) {
        return text.equals("-") ? null : HexFormat.of().parseHex(text.substring(1));
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "-" : "x" + HexFormat.of().formatHex(bytes);
    }
}
