<?php

/* What the extension adds to PHP; comet_arginfo.h says the same to Zend. The documentation is in ../src. */

namespace Comet;

class Exception extends \RuntimeException
{
}

class ArgumentException extends Exception
{
}

class ConnectException extends Exception
{
}

class TimeoutException extends Exception
{
}

class UnknownException extends Exception
{
}

class RefusedException extends Exception
{
}

class FileException extends Exception
{
}

interface ClientInterface
{
    public const NO_ACK = 1;
    public const BUFFER = 2;

    public function publish(
        string $channel,
        string $data = '',
        int $flags = 0,
        string $name = '',
        ?string $key = null,
    ): ?int;
    public function touch(string $channel): void;
    public function write(string $channel, string $data): void;
    public function flush(): void;
    public function spooled(): bool;
    public function cursor(): int;
    public function history(string|array $channels, int $since = 0): array;
}

final class Client implements ClientInterface
{
    public function __construct(string $dsn = '') {}
    public function publish(
        string $channel,
        string $data = '',
        int $flags = 0,
        string $name = '',
        ?string $key = null,
    ): ?int {}
    public function touch(string $channel): void {}
    public function write(string $channel, string $data): void {}
    public function flush(): void {}
    public function spooled(): bool {}
    public function cursor(): int {}
    public function history(string|array $channels, int $since = 0): array {}
}
