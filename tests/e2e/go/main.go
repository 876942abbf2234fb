// franz-go at work for test_other_clients.py and test_members.py: client produce BROKER TOPIC CODEC | consume BROKER TOPIC COUNT |
// group BROKER TOPIC GROUP COUNT | feed BROKER TOPIC | member BROKER TOPIC GROUP | admin BROKER TOPIC
//
// Records go in and out as lines of words: bytes as x and hexadecimal digits, null as -.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The whole of what a client does ends within this.
const timeMax = 120 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), timeMax)
	defer cancel()
	arguments := os.Args[1:]
	run := map[string]func(context.Context, []string) error{
		"produce": produce, "consume": consume, "group": group, "feed": feed, "member": member, "admin": admin,
	}[arguments[0]]
	if err := run(ctx, arguments[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// produce sends the lines of standard input to partition 0, as an idempotent producer, and prints the offset of each.
func produce(ctx context.Context, arguments []string) error {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	var records []*kgo.Record
	// What a topic takes by default, unless a record is larger.
	batch := int32(1_000_012)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		record, err := recordOf(lines.Text())
		if err != nil {
			return err
		}
		records = append(records, record)
		if len(record.Value) > 900_000 {
			batch = 10_000_000
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(arguments[0]), kgo.DefaultProduceTopic(arguments[1]),
		kgo.ProducerBatchCompression(codecs[arguments[2]]), kgo.ProducerBatchMaxBytes(batch), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, result := range client.ProduceSync(ctx, records...) {
		if result.Err != nil {
			return result.Err
		}
	}
	for _, record := range records {
		fmt.Println(record.Offset)
	}
	return nil
}

// consume prints COUNT records of partition 0 from its beginning.
func consume(ctx context.Context, arguments []string) error {
	topic := arguments[1]
	start := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
	return read(ctx, arguments[2], nil, kgo.SeedBrokers(arguments[0]), kgo.ConsumePartitions(start))
}

// group joins a group, prints the next COUNT records, commits them and leaves.
func group(ctx context.Context, arguments []string) error {
	commit := func(client *kgo.Client, printed []*kgo.Record) error { return client.CommitRecords(ctx, printed...) }
	return read(ctx, arguments[3], commit, kgo.SeedBrokers(arguments[0]), kgo.ConsumeTopics(arguments[1]),
		kgo.ConsumerGroup(arguments[2]), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
}

func read(ctx context.Context, count string, commit func(*kgo.Client, []*kgo.Record) error, options ...kgo.Opt) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	out := bufio.NewWriter(os.Stdout)
	var printed []*kgo.Record
	for left > 0 {
		fetches := client.PollRecords(ctx, left)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			fmt.Fprintln(out, record.Partition, record.Offset, lineOf(record))
			printed = append(printed, record)
			left--
		}
	}
	if commit != nil {
		if err := commit(client, printed); err != nil {
			return err
		}
	}
	return out.Flush()
}

func recordOf(line string) (*kgo.Record, error) {
	words := strings.Split(line, " ")
	millis, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{Timestamp: time.UnixMilli(millis)}
	record.Key, err = bytesOf(words[1])
	if err != nil {
		return nil, err
	}
	record.Value, err = bytesOf(words[2])
	for _, header := range words[3:] {
		name, value, _ := strings.Cut(header, "=")
		nameBytes, nameErr := bytesOf(name)
		valueBytes, valueErr := bytesOf(value)
		err = errors.Join(err, nameErr, valueErr)
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(nameBytes), Value: valueBytes})
	}
	return record, err
}

func lineOf(record *kgo.Record) string {
	words := []string{strconv.FormatInt(record.Timestamp.UnixMilli(), 10), word(record.Key), word(record.Value)}
	for _, header := range record.Headers {
		words = append(words, word([]byte(header.Key))+"="+word(header.Value))
	}
	return strings.Join(words, " ")
}

func bytesOf(word string) ([]byte, error) {
	if word == "-" {
		return nil, nil
	}
	return hex.DecodeString(word[1:])
}

func word(bytes []byte) string {
	if bytes == nil {
		return "-"
	}
	return "x" + hex.EncodeToString(bytes)
}
