<?php

declare(strict_types=1);

namespace Comet;

/** What an application asks of Comet\Client, so that its tests can put a double in the place of the client. */
interface ClientInterface
{
    /** Return when the message is handed to the system; flush() tells whether all went well. */
    public const NO_ACK = 1;

    /** Gather messages and send them together, at the latest at the end of the request. */
    public const BUFFER = 2;

    /**
     * Publishes any bytes. Returns the message's id (microseconds since 1970) when the daemon has it, or null: with
     * NO_ACK or BUFFER, and when the daemon is away and the message is in the spool (then spooled() is true). The daemon
     * publishes what is in the spool when it is back: once, and in the order of this client's messages.
     *
     * @param string $name the message's label, 128 bytes of text at most
     * @param ?string $key idempotency key, 128 bytes of text at most: published again with the same key on the same
     *     channel within ten minutes, it is still published once, and the id is the first
     * @throws Exception of the kind that tells what became of the message
     */
    public function publish(
        string $channel,
        string $data = '',
        int $flags = 0,
        string $name = '',
        ?string $key = null,
    ): ?int;

    /**
     * Publishes as `touch DIR/CHANNEL.comet` does. Needs no daemon now. The daemon must take files of PHP's user: see
     * `allow` under `[files]` in its configuration.
     *
     * @throws ArgumentException|FileException
     */
    public function touch(string $channel): void;

    /**
     * Publishes by replacing DIR/CHANNEL.comet; nobody ever reads half of it. Needs no daemon now. The same rule as for
     * touch() holds for PHP's user, and `max_bytes` under `[files]` (64 KiB) for the data.
     *
     * @throws ArgumentException|FileException
     */
    public function write(string $channel, string $data): void;

    /**
     * Sends what BUFFER has gathered and waits until everything is acknowledged, or in the spool.
     *
     * @throws Exception the first that went wrong since the last flush and was not told yet
     */
    public function flush(): void;

    /** Whether the last publish() or flush() left messages in the spool, because the daemon is away. */
    public function spooled(): bool;

    /**
     * The id of the newest message of all channels. A page that asks for it, then reads its state, and subscribes with
     * `since` this id, misses nothing.
     *
     * @throws Exception of the kind that tells what is wrong, such as ConnectException while the daemon is away
     */
    public function cursor(): int;

    /**
     * The messages that the daemon keeps of these channels, oldest first. `gap` is true when older messages after
     * `$since` are gone; `cursor` is for the next call, or for the page.
     *
     * @param string|string[] $channels 1 to 100 names
     * @param int $since a message's id, or 0 for all that is kept
     * @return array{cursor: int, gap: bool, messages: list<array{channel: string, id: int, name: string, data: string}>}
     * @throws Exception as for cursor()
     */
    public function history(string|array $channels, int $since = 0): array;
}
