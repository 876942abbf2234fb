// kafkajs at work for test_other_clients.py: NODE_PATH=.../node_modules node client.js produce BROKER TOPIC CODEC | group BROKER TOPIC GROUP COUNT
//
// Records go in and out as lines of words: bytes as x and hexadecimal digits, null as -.

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require("kafkajs");
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

// The offset after the last record of a partition.
function next(records, partition) {
  const offsets = records.map((record) => record.split(" ")).filter(([of]) => of === String(partition));
  return String(Number(offsets[offsets.length - 1][1]) + 1);
}

async function main([verb, broker, topic, ...rest]) {
  await zstd.init();
  const kafka = new Kafka({ clientId: "kafkajs", brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 8 } });
  if (verb === "produce") await produce(kafka, topic, rest[0]);
  else if (verb === "group") await group(kafka, topic, rest[0], Number(rest[1]));
  else throw new Error(`unknown verb ${verb}`);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
