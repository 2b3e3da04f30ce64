<?php

declare(strict_types=1);

namespace Comet;

/**
 * Publishes to every browser that listens to a channel. This class calls libcomet by FFI. If the comet extension is
 * loaded, PHP already has the same class and never reads this file.
 *
 * All clients of one DSN share one connection of their PHP process. The connection stays open after a request.
 */
final class Client implements ClientInterface
{
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

    public function publish(
        string $channel,
        string $data = '',
        int $flags = 0,
        string $name = '',
        ?string $key = null,
    ): ?int {
        $this->spooled = false; // stays false when this call fails
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
            // C has 32 bits. A larger value must not become a valid flag when it is cut off.
            \min(\max($flags, -1), 0xFFFFFFFF) | $this->comet->COMET_FLAG_SPOOL,
            \FFI::addr($receipt),
        ));
        $this->buffered = $this->buffered || ($flags & self::BUFFER) !== 0;
        return $receipt->id ?: null;
    }

    public function touch(string $channel): void
    {
        $this->check($this->comet->comet_touch($this->handle, $channel, \strlen($channel)));
    }

    public function write(string $channel, string $data): void
    {
        $this->check($this->comet->comet_write($this->handle, $channel, \strlen($channel), $data, \strlen($data)));
    }

    public function flush(): void
    {
        $this->buffered = $this->spooled = false;
        $this->spooled = $this->check($this->comet->comet_flush($this->handle));
    }

    public function spooled(): bool
    {
        return $this->spooled;
    }

    public function cursor(): int
    {
        $cursor = $this->comet->new('uint64_t');
        $this->check($this->comet->comet_cursor($this->handle, \FFI::addr($cursor)));
        return $cursor->cdata;
    }

    public function history(string|array $channels, int $since = 0): array
    {
        if ($since < 0) {
            throw new ArgumentException('since must be a message\'s id, or 0', -2);
        }
        $names = \is_array($channels) ? \implode(',', $channels) : $channels;
        $text = $this->comet->new('const char *');
        $length = $this->comet->new('size_t');
        $this->check($this->comet->comet_history(
            $this->handle,
            $names,
            \strlen($names),
            $since,
            \FFI::addr($text),
            \FFI::addr($length),
        ));
        return $this->decoded(\FFI::string($text, $length->cdata));
    }

    public function __destruct()
    {
        if ($this->buffered) {
            try {
                $this->flush();
            } catch (Exception $e) {
                self::warn('Comet: buffered messages are lost: ' . $e->getMessage());
            }
        }
    }

    /**
     * Raises a warning that never becomes an exception: an exception here would end the request and could not be
     * caught.
     */
    private static function warn(string $text): void
    {
        try {
            \trigger_error($text, \E_USER_WARNING);
        } catch (\Throwable) {
            // The application's error handler has thrown, or the function is disabled.
            try {
                \error_log($text);
            } catch (\Error) {
                // error_log is disabled, too. PHP has no other place for the text.
            }
        }
    }

    /** @return array{cursor: int, gap: bool, messages: list<array{channel: string, id: int, name: string, data: string}>} */
    private function decoded(string $json): array
    {
        $history = \json_decode($json, true);
        if (!isset($history['cursor'], $history['gap']) || !\is_array($history['messages'] ?? null)) {
            throw new Exception('the daemon\'s answer to history is malformed', $this->comet->COMET_RESULT_PROTOCOL);
        }
        foreach ($history['messages'] as &$message) {
            if (isset($message['encoding'])) {
                $message['data'] = \base64_decode($message['data']);
                unset($message['encoding']);
            }
        }
        return ['cursor' => (int) $history['cursor'], 'gap' => $history['gap'], 'messages' => $history['messages']];
    }

    private function __clone()
    {
    }

    /** The library: preloaded (ffi.preload), or loaded by this file. */
    private static function library(): \FFI
    {
        static $comet = null;
        return $comet ??= self::checked(self::preloaded() ?? self::load());
    }

    private static function preloaded(): ?\FFI
    {
        try {
            return \FFI::scope('COMET');
        } catch (\FFI\Exception) {
            return null;
        } catch (\Error $e) { // there is no such class
            throw new Exception('PHP has neither the comet extension nor FFI (see ' . self::manual() . ')', 0, $e);
        }
    }

    private static function load(): \FFI
    {
        try {
            $library = \getenv('COMET_LIBRARY');
        } catch (\Error) { // the function is disabled
            $library = false;
        }
        try {
            return \FFI::cdef(self::header(), $library ?: 'libcomet.so.1');
        } catch (\FFI\Exception $e) {
            throw new Exception("cannot load libcomet: {$e->getMessage()} (see " . self::manual() . ')', 0, $e);
        }
    }

    /** Reads the C header in the folder above this file. open_basedir has to allow its path. */
    private static function header(): string
    {
        $path = \dirname(__DIR__) . '/comet_ffi.h';
        try {
            $header = @\file_get_contents($path);
        } catch (\Throwable) { // an error handler that does not respect "@"
            $header = false;
        }
        if ($header === false) {
            throw new Exception("cannot read $path: PHP needs it there, and open_basedir must allow it");
        }
        return $header;
    }

    /** The path of the manual: in a checkout, an installation or a Composer package. */
    private static function manual(): string
    {
        return \dirname(__DIR__) . '/README.md';
    }

    private static function checked(\FFI $comet): \FFI
    {
        if ($comet->comet_abi_version() >> 16 !== self::ABI) {
            throw new Exception("libcomet {$comet->comet_version()} does not fit this version of Comet\\Client");
        }
        return $comet;
    }

    /** Throws the exception for an error. Returns true if the message is in the spool, because the daemon is down. */
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
