// kafkajs at work for test_other_clients.py and test_members.py: NODE_PATH=.../node_modules node client.js produce BROKER TOPIC CODEC |
// group BROKER TOPIC GROUP COUNT | feed BROKER TOPIC | member BROKER TOPIC GROUP | admin BROKER TOPIC
//
// Records go in and out as lines of words: bytes as x and hexadecimal digits, null as -.

const readline = require("readline");
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require("kafkajs");
const lz4 = require("lz4js");
const zstd = require("@bokuweb/zstd-wasm");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});
const CODECS = { none: "None", gzip: "GZIP", snappy: "Snappy", lz4: "LZ4", zstd: "ZSTD" };

const PARTITIONS = 4;

const bytes = (word) => (word === "-" ? null : Buffer.from(word.slice(1), "hex"));
const text = (bytes) => (bytes === null || bytes === undefined ? "-" : "x" + bytes.toString("hex"));

function message(line) {
  const [timestamp, key, value, ...headers] = line.split(" ");
  const pairs = headers.map((header) => header.split("=").map(bytes));
  return { partition: 0, timestamp, key: bytes(key), value: bytes(value), headers: Object.fromEntries(pairs) };
}

// Sends the lines of standard input to partition 0, a thousand at a time. Prints the first offset of each request.
async function produce(kafka, topic, codec) {
  const lines = require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 5, allowAutoTopicCreation: false });
  await producer.connect();
  for (let first = 0; first < lines.length; first += 1000) {
    const messages = lines.slice(first, first + 1000).map(message);
    const [answer] = await producer.send({ topic, messages, acks: -1, compression: CompressionTypes[CODECS[codec]] });
    console.log(answer.baseOffset);
  }
  await producer.disconnect();
}

// Joins a group, prints the next COUNT records as "partition offset timestamp key value name=value...", commits them and leaves.
async function group(kafka, topic, groupId, count) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, rebalanceTimeout: 10000 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const records = [];
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    consumer
      .run({
        eachBatchAutoResolve: false,
        eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary }) => {
          for (const message of batch.messages) {
            if (records.length === count) break;
            const headers = Object.entries(message.headers).map(([name, value]) => `${text(Buffer.from(name))}=${text(value)}`);
            const words = [batch.partition, message.offset, message.timestamp, text(message.key), text(message.value)];
            records.push([...words, ...headers].join(" "));
            resolveOffset(message.offset);
          }
          await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition: batch.partition, offset: next(records, batch.partition) }] }] });
          if (records.length === count) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  console.log(records.join("\n"));
}

// Sends each number of standard input to the partition that it leaves when divided, and prints it with its offset when it is acknowledged.
async function feed(kafka, topic) {
  const producer = kafka.producer({ allowAutoTopicCreation: false });
  await producer.connect();
  const lines = readline.createInterface({ input: process.stdin });
  const waiting = [];
  let ended = false;
  lines.on("line", (line) => waiting.push(line)).on("close", () => (ended = true));
  while (!ended || waiting.length > 0) {
    if (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    const numbers = waiting.splice(0, 100);
    if (numbers.length === 0) continue;
    const messages = numbers.map((number) => ({ partition: Number(number) % PARTITIONS, value: number }));
    const answers = await producer.send({ topic, messages, acks: -1 });
    for (const answer of answers) {
      const sent = numbers.filter((number) => Number(number) % PARTITIONS === answer.partition);
      sent.forEach((number, index) => console.log(number, Number(answer.baseOffset) + index));
    }
  }
  await producer.disconnect();
}

// Reads in a group until standard input ends: prints each record, and commits what it has printed.
async function member(kafka, topic, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 3000, rebalanceTimeout: 10000, heartbeatInterval: 300, maxWaitTimeInMs: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, uncommittedOffsets }) => {
      for (const message of batch.messages) {
        console.log(batch.partition, message.offset, message.value.toString());
        resolveOffset(message.offset);
      }
      await commitOffsetsIfNecessary(uncommittedOffsets());
      await heartbeat();
    },
  });
  await new Promise((resolve) => process.stdin.on("end", resolve).resume());
  await consumer.disconnect();
}

// Creates a topic, tells of it and of the group of its name, alters it, and deletes both.
async function admin(kafka, topic) {
  const admin = kafka.admin();
  await admin.connect();
  const configEntries = [{ name: "retention.ms", value: "1234" }];
  await admin.createTopics({ topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries }] });
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  console.log(`partitions=${metadata.topics[0].partitions.length}`);
  const config = async (name) => {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: [name] }];
    const told = await admin.describeConfigs({ resources, includeSynonyms: false });
    console.log(`${name}=${told.resources[0].configEntries[0].configValue}`);
  };
  await config("retention.ms");
  const entries = [{ name: "max.message.bytes", value: "5000" }];
  await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: entries }] });
  await config("max.message.bytes");
  const { groups } = await admin.listGroups();
  const described = await admin.describeGroups([topic]);
  console.log(`groups=${groups[0].groupId} ${described.groups[0].state}`);
  const [committed] = await admin.fetchOffsets({ groupId: topic });
  console.log(`committed=${committed.partitions[0].offset} ${committed.partitions[0].metadata}`);
  await admin.deleteGroups([topic]);
  console.log(`groups left=${(await admin.listGroups()).groups.length}`);
  await admin.deleteTopics({ topics: [topic] });
  console.log(`topics left=${(await admin.listTopics()).join(",")}`);
  await admin.disconnect();
}

// The offset after the last record of a partition.
function next(records, partition) {
  const offsets = records.map((record) => record.split(" ")).filter(([of]) => of === String(partition));
  return String(Number(offsets[offsets.length - 1][1]) + 1);
}

async function main([verb, broker, topic, ...rest]) {
  await zstd.init();
  const kafka = new Kafka({ clientId: "kafkajs", brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 20, initialRetryTime: 50, maxRetryTime: 500 } });
  if (verb === "produce") await produce(kafka, topic, rest[0]);
  else if (verb === "group") await group(kafka, topic, rest[0], Number(rest[1]));
  else if (verb === "feed") await feed(kafka, topic);
  else if (verb === "member") await member(kafka, topic, rest[0]);
  else if (verb === "admin") await admin(kafka, topic);
  else throw new Error(`unknown verb ${verb}`);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
