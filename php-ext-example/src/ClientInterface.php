<?php

declare(strict_types=1);

namespace Comet;

/** The methods of Comet\Client. An application's tests can use another class with this interface. */
interface ClientInterface
{
    /** Return as soon as the message is passed to the system. flush() reports errors later. */
    public const NO_ACK = 1;

    /** Gather messages and send them together, at the end of the request at the latest. */
    public const BUFFER = 2;

    /**
     * Publishes any bytes. Returns the message's id (microseconds since 1970) when the daemon has accepted the message.
     * Returns null with NO_ACK or BUFFER, and when the daemon is down and the message is in the spool (then spooled() is
     * true). When the daemon runs again, it publishes the messages of the spool: each once, and in the order of this
     * client's calls.
     *
     * @param string $channel a channel, or up to 100 channels separated by commas: one message, with one id, for all of them
     * @param string $name the message's label, 200 bytes of text at most
     * @param ?string $key idempotency key, 128 bytes of text at most. A second message with the same key on the same
     *     channel within ten minutes is not published, and the id of the first one is returned
     * @throws Exception whose class says what happened to the message
     */
    public function publish(
        string $channel,
        string $data = '',
        int $flags = 0,
        string $name = '',
        ?string $key = null,
    ): ?int;

    /**
     * Publishes as `touch DIR/CHANNEL.comet` does. The daemon need not run at this moment. It must accept files of PHP's
     * user: see `allow` under `[files]` in its configuration.
     *
     * @throws ArgumentException|FileException
     */
    public function touch(string $channel): void;

    /**
     * Publishes by replacing DIR/CHANNEL.comet in one step, so that no reader sees a part of the data. The daemon need
     * not run at this moment. As for touch(), it must accept files of PHP's user. `max_bytes` under `[files]` (64 KiB)
     * limits the data.
     *
     * @throws ArgumentException|FileException
     */
    public function write(string $channel, string $data): void;

    /**
     * Sends the messages that BUFFER has gathered, and waits until all messages are acknowledged or in the spool.
     *
     * @throws Exception the first error since the last flush that was not reported yet
     */
    public function flush(): void;

    /** Whether the last publish() or flush() left messages in the spool, because the daemon is down. */
    public function spooled(): bool;

    /**
     * The id of the newest message of all channels. A page misses nothing if it first asks for this id, then reads its
     * state, and then subscribes with this id as `since`.
     *
     * @throws Exception whose class says what is wrong, such as ConnectException while the daemon is down
     */
    public function cursor(): int;

    /**
     * The messages that the daemon keeps of these channels, oldest first. `gap` is true when messages after `$since`
     * were removed. `cursor` is the `$since` of the next call, or the page's `since`.
     *
     * @param string|string[] $channels 1 to 100 names
     * @param int $since a message's id, or 0 for all kept messages
     * @return array{cursor: int, gap: bool, messages: list<array{channel: string, id: int, name: string, data: string}>}
     * @throws Exception as for cursor()
     */
    public function history(string|array $channels, int $since = 0): array;
}
