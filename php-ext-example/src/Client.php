<?php

declare(strict_types=1);

namespace Comet;

/**
 * Publishes to every browser that listens to a channel. This is the class over libcomet by FFI; with the comet
 * extension loaded PHP has the same class natively and never reads this file.
 *
 * All clients of one DSN share the connection of their PHP process, which survives requests.
 */
final class Client
{
    /** Return when the message is handed to the system; flush() tells whether all went well. */
    public const NO_ACK = 1;

    /** Gather messages and send them together, at the latest at the end of the request. */
    public const BUFFER = 2;

    /** The version of libcomet's interface that this class is written for. */
    private const ABI = 1;

    private \FFI $comet;
    private \FFI\CData $handle;
    private bool $buffered = false;
    private bool $spooled = false;

    /**
     * @param string $dsn `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=off]`; by default the daemon's
     *     usual socket
     * @throws ArgumentException when the DSN breaks a rule
     */
    public function __construct(string $dsn = '')
    {
        if (\str_contains($dsn, "\0")) {
            throw new ArgumentException('DSN may not contain a NUL byte', -2);
        }
        $this->comet = self::library();
        $this->handle = $this->comet->new('comet_t *');
        $this->check($this->comet->comet_popen($dsn, \FFI::addr($this->handle)));
    }

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
    ): ?int {
        $receipt = $this->comet->new('comet_receipt');
        $this->spooled = $this->check($this->comet->comet_publish_named(
            $this->handle,
            $channel,
            \strlen($channel),
            $name,
            \strlen($name),
            $key,
            \strlen($key ?? ''),
            $data,
            \strlen($data),
            // C has 32 bits; what is cut off must not become a valid flag.
            \min(\max($flags, -1), 0xFFFFFFFF) | $this->comet->COMET_FLAG_SPOOL,
            \FFI::addr($receipt),
        ));
        $this->buffered = $this->buffered || ($flags & self::BUFFER) !== 0;
        return $receipt->id ?: null;
    }

    /**
     * Publishes as `touch DIR/CHANNEL.comet` does. Needs no daemon now.
     *
     * @throws ArgumentException|FileException
     */
    public function touch(string $channel): void
    {
        $this->check($this->comet->comet_touch($this->handle, $channel, \strlen($channel)));
    }

    /**
     * Publishes by replacing DIR/CHANNEL.comet; nobody ever reads half of it. Needs no daemon now.
     *
     * @throws ArgumentException|FileException
     */
    public function write(string $channel, string $data): void
    {
        $this->check($this->comet->comet_write($this->handle, $channel, \strlen($channel), $data, \strlen($data)));
    }

    /**
     * Sends what BUFFER has gathered and waits until everything is acknowledged, or in the spool.
     *
     * @throws Exception the first that went wrong since the last flush and was not told yet
     */
    public function flush(): void
    {
        $this->buffered = false;
        $this->spooled = $this->check($this->comet->comet_flush($this->handle));
    }

    /** Whether the last publish() or flush() left messages in the spool, because the daemon is away. */
    public function spooled(): bool
    {
        return $this->spooled;
    }

    public function __destruct()
    {
        if ($this->buffered) {
            try {
                $this->flush();
            } catch (Exception $e) {
                \trigger_error('Comet: buffered messages are lost: ' . $e->getMessage(), \E_USER_WARNING);
            }
        }
    }

    private function __clone()
    {
    }

    /** The library: preloaded (ffi.preload), or loaded by this file. */
    private static function library(): \FFI
    {
        static $comet = null;
        if (!\extension_loaded('FFI')) {
            throw new Exception('PHP has neither the comet extension nor FFI (see php-ext-example/README.md)');
        }
        return $comet ??= self::checked(self::preloaded() ?? self::load());
    }

    private static function preloaded(): ?\FFI
    {
        try {
            return \FFI::scope('COMET');
        } catch (\FFI\Exception) {
            return null;
        }
    }

    private static function load(): \FFI
    {
        // A checkout, an installation beside this file, and the usual places for those who have it by Composer.
        $places = [__DIR__ . '/../../include', __DIR__ . '/../..', '/usr/local/share/comet', '/usr/share/comet'];
        $headers = \array_filter(\array_map(static fn ($place) => "$place/comet_ffi.h", $places), \is_file(...));
        if ($headers === []) {
            throw new Exception('comet_ffi.h is in none of ' . \implode(', ', $places));
        }
        try {
            return \FFI::cdef(\file_get_contents(\reset($headers)), \getenv('COMET_LIBRARY') ?: 'libcomet.so.1');
        } catch (\FFI\Exception $e) {
            throw new Exception("cannot load libcomet: {$e->getMessage()} (see php-ext-example/README.md)", 0, $e);
        }
    }

    private static function checked(\FFI $comet): \FFI
    {
        if ($comet->comet_abi_version() >> 16 !== self::ABI) {
            throw new Exception("libcomet {$comet->comet_version()} does not fit this version of Comet\\Client");
        }
        return $comet;
    }

    /** Throws what went wrong; true: the daemon is away, and the spool has it. */
    private function check(int $result): bool
    {
        if ($result >= 0) {
            return $result === $this->comet->COMET_RESULT_SPOOLED;
        }
        $text = $this->comet->comet_error(null);
        throw match ($result) {
            $this->comet->COMET_RESULT_DSN,
            $this->comet->COMET_RESULT_CHANNEL,
            $this->comet->COMET_RESULT_FLAGS,
            $this->comet->COMET_RESULT_NAME,
            $this->comet->COMET_RESULT_KEY,
            $this->comet->COMET_RESULT_LENGTH => new ArgumentException($text, $result),
            $this->comet->COMET_RESULT_CONNECT => new ConnectException($text, $result),
            $this->comet->COMET_RESULT_TIMEOUT => new TimeoutException($text, $result),
            $this->comet->COMET_RESULT_UNKNOWN => new UnknownException($text, $result),
            $this->comet->COMET_RESULT_REFUSED => new RefusedException($text, $result),
            $this->comet->COMET_RESULT_FILE => new FileException($text, $result),
            default => new Exception($text, $result),
        };
    }
}
