<?php

declare(strict_types=1);

namespace Comet;

/**
 * Signs tokens that let a browser read or publish to channels whose rule says "token". Needs neither FFI nor extension.
 */
final class Token
{
    private const MIN_SECRET = 32;
    private const MAX_PATTERNS = 64;
    private const MAX_BYTES = 4096;

    private const MAX_NAME = 200;
    private const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
    private const SIGNS = '_.:=+@~-';

    /**
     * Returns a token signed with HS256, for a key that the daemon has under [[auth.key]].
     *
     * @param string $secret the key's secret, 32 bytes at least. Line ends at its end are removed, as the daemon does, so
     *     the contents of a file can be passed without a change
     * @param string $kid the key's name in the daemon's configuration
     * @param string[] $subscribe channels that may be read, such as `news`, `user.42.*`, or `*` for all
     * @param string[] $publish channels that may be published to
     * @param int $seconds seconds from now until the token expires
     * @param bool $history whether older messages may be read, too
     * @param string $audience the value of `audience` under [auth]
     * @throws ArgumentException when the daemon would refuse the token
     */
    public static function mint(
        #[\SensitiveParameter] string $secret,
        string $kid,
        array $subscribe = [],
        array $publish = [],
        int $seconds = 600,
        bool $history = false,
        string $subject = '',
        string $audience = 'comet',
    ): string {
        $secret = \rtrim($secret, "\r\n");
        self::check(\strlen($secret) >= self::MIN_SECRET, 'secret must have ' . self::MIN_SECRET . ' bytes at least');
        self::check($seconds > 0, 'a token must hold for a second at least');
        $patterns = [...\array_values($subscribe), ...\array_values($publish)];
        self::check(\count($patterns) <= self::MAX_PATTERNS, 'more than ' . self::MAX_PATTERNS . ' patterns');
        foreach ($patterns as $pattern) {
            self::check(\is_string($pattern) && self::isPattern($pattern), 'no channel and no start of channels: ' . \var_export($pattern, true));
        }
        $claims = ['aud' => $audience, 'exp' => \time() + $seconds, 'comet' => [
            's' => \array_values($subscribe),
            'p' => \array_values($publish),
            'h' => (int) $history,
        ]];
        if ($subject !== '') {
            $claims['sub'] = $subject;
        }
        $text = self::part(['alg' => 'HS256', 'typ' => 'JWT', 'kid' => $kid]) . '.' . self::part($claims);
        $token = $text . '.' . self::base64(\hash_hmac('sha256', $text, $secret, true));
        self::check(\strlen($token) <= self::MAX_BYTES, 'a token may have ' . self::MAX_BYTES . ' bytes at most');
        return $token;
    }

    /** Whether the text is a channel, `*`, or a prefix that ends in a sign (no letter or digit) with `*` behind it. */
    private static function isPattern(string $pattern): bool
    {
        if ($pattern === '*') {
            return true;
        }
        $start = \str_ends_with($pattern, '*') ? \substr($pattern, 0, -1) : $pattern;
        $length = \strlen($start);
        return $length > 0 && $length <= self::MAX_NAME && $start[0] !== '.'
            && \strspn($start, self::LETTERS . self::SIGNS) === $length
            && ($start === $pattern || \strspn($start[-1], self::SIGNS) === 1);
    }

    private static function part(array $value): string
    {
        try {
            return self::base64(\json_encode($value, \JSON_THROW_ON_ERROR | \JSON_UNESCAPED_SLASHES));
        } catch (\JsonException $e) {
            throw new ArgumentException('kid, subject and audience must be UTF-8', -2, $e);
        }
    }

    private static function base64(string $bytes): string
    {
        return \rtrim(\strtr(\base64_encode($bytes), '+/', '-_'), '=');
    }

    private static function check(bool $holds, string $rule): void
    {
        if (!$holds) {
            throw new ArgumentException($rule, -2);
        }
    }
}
