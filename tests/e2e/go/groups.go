package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 4

// feed sends each number of standard input to the partition that it leaves when divided, and prints it with its offset when it is acknowledged.
func feed(ctx context.Context, arguments []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(arguments[0]), kgo.DefaultProduceTopic(arguments[1]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	var failed error
	var lock sync.Mutex
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		number, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		record := &kgo.Record{Value: []byte(lines.Text()), Partition: int32(number % partitions)}
		client.Produce(ctx, record, func(record *kgo.Record, err error) {
			lock.Lock()
			defer lock.Unlock()
			failed = errors.Join(failed, err)
			fmt.Println(number, record.Offset)
		})
	}
	return errors.Join(client.Flush(ctx), failed)
}

// member reads in a group until standard input ends: prints each record, and commits what it has printed.
func member(ctx context.Context, arguments []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(arguments[0]), kgo.ConsumeTopics(arguments[1]), kgo.ConsumerGroup(arguments[2]),
		kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(3*time.Second),
		kgo.HeartbeatInterval(300*time.Millisecond), kgo.BlockRebalanceOnPoll())
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	ctx, stop := context.WithCancel(ctx)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 1000)
		for _, record := range fetches.Records() {
			fmt.Println(record.Partition, record.Offset, string(record.Value))
		}
		// What is refused, because a rebalance came between or the broker is gone, is seen again.
		if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		client.AllowRebalance()
	}
	return nil
}

// admin creates a topic, lists and describes it, alters it, deletes the group of its name, and deletes it.
func admin(ctx context.Context, arguments []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(arguments[0]))
	if err != nil {
		return err
	}
	defer client.Close()
	admin, topic := kadm.NewClient(client), arguments[1]
	retention := "1234"
	created, err := admin.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": &retention}, topic)
	if err = errors.Join(err, created.Err); err != nil {
		return err
	}
	if _, err = admin.UpdatePartitions(ctx, 4, topic); err != nil {
		return err
	}
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	fmt.Printf("partitions=%d\nends=%d\n", len(topics[topic].Partitions), len(ends[topic]))
	size := "5000"
	if _, err = admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "max.message.bytes", Value: &size}}, topic); err != nil {
		return err
	}
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	for _, config := range configs[0].Configs {
		if config.Key == "retention.ms" || config.Key == "max.message.bytes" {
			fmt.Printf("%s=%s\n", config.Key, *config.Value)
		}
	}
	if err = adminGroup(ctx, admin, topic); err != nil {
		return err
	}
	deleted, err := admin.DeleteTopic(ctx, topic)
	if err = errors.Join(err, deleted.Err); err != nil {
		return err
	}
	left, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("topics left=%s\n", left.Names()[0])
	return nil
}

// adminGroup tells of a group that has committed an offset of one partition, and deletes it.
func adminGroup(ctx context.Context, admin *kadm.Client, group string) error {
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	lags, err := admin.Lag(ctx, group)
	if err != nil {
		return err
	}
	described := lags[group]
	if err = described.Error(); err != nil {
		return err
	}
	fmt.Printf("groups=%s %s\n", listed.Groups()[0], described.State)
	for _, lag := range described.Lag.Sorted() {
		fmt.Printf("committed=%d %s\nlag=%d\n", lag.Commit.At, lag.Commit.Metadata, lag.Lag)
	}
	deleted, err := admin.DeleteGroups(ctx, group)
	if err = errors.Join(err, deleted.Error()); err != nil {
		return err
	}
	listed, err = admin.ListGroups(ctx)
	fmt.Printf("groups left=%d\n", len(listed))
	return err
}
