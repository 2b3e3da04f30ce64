<?php
// Writes tokens.json: php tests/vectors/tokens.php > tests/vectors/tokens.json
// Each run makes new key pairs and so new tokens; what they must be answered with stays.
// `error` is part of what the daemon says about a token, null when it is taken.

function b64(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

function part(mixed $value): string
{
    return b64(json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES));
}

/** The signature of ECDSA as JWS wants it, from what OpenSSL gives (two DER integers). */
function fixed(string $der): string
{
    $at = 2;
    $out = '';
    for ($i = 0; $i < 2; $i++) {
        $length = ord($der[$at + 1]);
        $out .= str_pad(ltrim(substr($der, $at + 2, $length), "\0"), 32, "\0", STR_PAD_LEFT);
        $at += 2 + $length;
    }
    return $out;
}

function pem(string $der): string
{
    return "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($der), 64, "\n") . "-----END PUBLIC KEY-----\n";
}

const SECRET = 'a secret of more than 32 bytes, for tests only';
$rsa = openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_RSA, 'private_key_bits' => 2048]);
$ec = openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'prime256v1']);
$ed = sodium_crypto_sign_keypair();
$edPublic = pem("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" . sodium_crypto_sign_publickey($ed));
$rsaPublic = openssl_pkey_get_details($rsa)['key'];

$hmac = fn (string $key, string $hash = 'sha256') => fn ($text) => hash_hmac($hash, $text, $key, true);
$openssl = fn ($key, $hash = OPENSSL_ALGO_SHA256) => function ($text) use ($key, $hash) {
    openssl_sign($text, $signature, $key, $hash);
    return $signature;
};
$sodium = fn ($pair) => fn ($text) => sodium_crypto_sign_detached($text, sodium_crypto_sign_secretkey($pair));
$sign = [
    'HS256' => $hmac(SECRET),
    'RS256' => $openssl($rsa),
    'ES256' => fn ($text) => fixed($openssl($ec)($text)),
    'EdDSA' => $sodium($ed),
];

function token(array $header, mixed $claims, callable $sign): string
{
    $text = part($header) . '.' . (is_string($claims) ? b64($claims) : part($claims));
    return $text . '.' . b64($sign($text));
}

$claims = ['sub' => '42', 'aud' => 'comet', 'exp' => 4102444800,
    'comet' => ['s' => ['chat.7', 'user.42.*'], 'p' => ['chat.7'], 'h' => 1, 'info' => ['name' => 'Ann']]];
$with = fn (array $changes) => array_diff_key(array_replace($claims, $changes), array_flip(array_keys($changes, null, true)));
$comet = fn (mixed $comet) => $with(['comet' => $comet]);
$header = fn (string $alg, string $kid) => ['alg' => $alg, 'typ' => 'JWT', 'kid' => $kid];
$as = fn (string $alg, string $kid, callable $sign) => token($header($alg, $kid), $claims, $sign);
$hs = fn (mixed $claims) => token($header('HS256', 'hs'), $claims, $sign['HS256']);

$good = $hs($claims);
[$first, $second, $third] = explode('.', $good);
$flip = fn (string $text) => ($text[0] === 'A' ? 'B' : 'A') . substr($text, 1);
$many = array_map(fn ($n) => "c.$n", range(1, 64));

$tokens = [
    ['HS256', $good, null],
    ['RS256', $as('RS256', 'rs', $sign['RS256']), null],
    ['ES256', $as('ES256', 'es', $sign['ES256']), null],
    ['EdDSA', $as('EdDSA', 'ed', $sign['EdDSA']), null],
    ['a second key of the same kind', $as('HS256', 'next', $hmac(strrev(SECRET))), null],
    ['several audiences', $hs($with(['aud' => ['other', 'comet']])), null],
    ['a fraction of a second', $hs($with(['exp' => 4102444800.5])), null],
    ['h as a word', $hs($comet(['s' => ['chat.7', 'user.42.*'], 'p' => ['chat.7'], 'h' => true])), null],
    ['claims that nobody here knows', $hs($with(['iat' => 1, 'iss' => 'x', 'jti' => 'y', 'more' => [[1]]])), null],
    ['64 patterns', $hs($comet(['s' => [...array_slice($many, 0, 61), 'chat.7', 'user.42.*'], 'p' => ['chat.7'], 'h' => 1])), null],

    ['another secret', $as('HS256', 'hs', $hmac(SECRET . '!')), 'signature'],
    ['the secret of another key', $as('HS256', 'next', $sign['HS256']), 'signature'],
    ['another RSA key', $as('RS256', 'rs', $openssl(openssl_pkey_new(['private_key_bits' => 2048]))), 'signature'],
    ['SHA-512 under RS256', $as('RS256', 'rs', $openssl($rsa, OPENSSL_ALGO_SHA512)), 'signature'],
    ['ECDSA as DER', $as('ES256', 'es', $openssl($ec)), 'signature'],
    ['ECDSA of zeros', $as('ES256', 'es', fn () => str_repeat("\0", 64)), 'signature'],
    ['another Ed25519 key', $as('EdDSA', 'ed', $sodium(sodium_crypto_sign_keypair())), 'signature'],
    ['a changed claim', "$first." . part($with(['sub' => '43'])) . ".$third", 'signature'],
    ['a changed signature', "$first.$second." . $flip($third), 'signature'],
    ['a cut signature', substr($good, 0, -12), 'signature'],
    ['half a signature', "$first.$second." . b64(substr($sign['HS256']("$first.$second"), 0, 16)), 'signature'],
    ['an empty signature', "$first.$second.", 'signature'],

    ['alg none', part(['alg' => 'none', 'kid' => 'hs']) . ".$second.", 'algorithm'],
    ['alg None with a signature', $as('None', 'hs', $sign['HS256']), 'algorithm'],
    ['HS256 with the public RSA key as secret', $as('HS256', 'rs', $hmac($rsaPublic)), 'algorithm'],
    ['HS256 with the public Ed25519 key as secret', $as('HS256', 'ed', $hmac(sodium_crypto_sign_publickey($ed))), 'algorithm'],
    ['RS256 under the kid of a secret', $as('RS256', 'hs', $sign['RS256']), 'algorithm'],
    ['EdDSA under the kid of ECDSA', $as('EdDSA', 'es', $sign['EdDSA']), 'algorithm'],
    ['HS512', $as('HS512', 'hs', $hmac(SECRET, 'sha512')), 'algorithm'],
    ['RS384', $as('RS384', 'rs', $sign['RS256']), 'algorithm'],

    ['an unknown key', $as('HS256', 'hs2', $sign['HS256']), 'kid'],
    ['no kid among several keys', token(['alg' => 'HS256', 'typ' => 'JWT'], $claims, $sign['HS256']), 'kid'],
    ['a kid that is a path', $as('HS256', '../../dev/null', $hmac('')), 'kid'],

    ['expired', $hs($with(['exp' => 1700000000])), 'expired'],
    ['expired long ago', $hs($with(['exp' => 0.5])), 'expired'],
    ['not yet', $hs($with(['nbf' => 4102444799])), 'not valid yet'],
    ['no exp', $hs($with(['exp' => null])), '"exp"'],
    ['exp as text', $hs($with(['exp' => '4102444800'])), 'claims'],
    ['another audience', $hs($with(['aud' => 'other'])), 'audience'],
    ['no audience', $hs($with(['aud' => null])), '"aud"'],
    ['an empty list of audiences', $hs($with(['aud' => []])), 'audience'],
    ['no comet', $hs($with(['comet' => null])), '"comet"'],

    ['65 patterns', $hs($comet(['s' => $many, 'p' => ['chat.7']])), '64 patterns'],
    ['too long', $hs($with(['pad' => str_repeat('x', 4096)])), '4096'],
    ['a star within a word', $hs($comet(['s' => ['user.4*']])), 'pattern'],
    ['a star in the middle', $hs($comet(['s' => ['user.*.mail']])), 'pattern'],
    ['a slash', $hs($comet(['p' => ['chat/7']])), 'pattern'],
    ['an empty pattern', $hs($comet(['s' => ['']])), 'pattern'],
    ['patterns that are lists', $hs($comet(['s' => [[['chat.7']]]])), 'claims'],
    ['patterns as a text', $hs($comet(['s' => 'chat.7'])), 'claims'],
    ['comet as a number', $hs($comet(7)), 'claims'],
    ['comet as a text', $hs($comet('*')), 'claims'],
    ['h as an object', $hs($comet(['h' => ['yes' => 1]])), 'claims'],
    ['claims that are a number', $hs(7), 'claims'],
    ['claims nested without end', $hs('{"exp":4102444800,"aud":"comet","comet":' . str_repeat('[', 1000)), 'claims'],
    ['claims that are no JSON', $hs('}{'), 'claims'],
    ['the same claim twice', $hs('{"exp":4102444800,"aud":"comet","comet":{"s":[]},"comet":{"s":["*"]}}'), 'claims'],

    ['an extension that must be understood', token(['alg' => 'HS256', 'kid' => 'hs', 'crit' => ['exp']], $claims, $sign['HS256']), 'no JWT'],
    ['a header that is a number', b64('7') . ".$second.$third", 'algorithm'],
    ['a header that is no JSON', b64('{') . ".$second.$third", 'no JWT'],
    ['two parts', "$first.$second", 'no JWT'],
    ['four parts', "$good.$third", 'no JWT'],
    ['padding', "$first=.$second.$third", 'no JWT'],
    ['standard base64', "$first.$second." . base64_encode("\xff\xff\xff"), 'no JWT'],
    ['dots', '..', 'no JWT'],
    ['nothing', '', 'no JWT'],
];

echo json_encode([
    'now' => 1795250000,
    'keys' => [
        ['kid' => 'hs', 'alg' => 'HS256', 'secret' => SECRET],
        ['kid' => 'next', 'alg' => 'HS256', 'secret' => strrev(SECRET)],
        ['kid' => 'rs', 'alg' => 'RS256', 'public_key' => $rsaPublic],
        ['kid' => 'es', 'alg' => 'ES256', 'public_key' => openssl_pkey_get_details($ec)['key']],
        ['kid' => 'ed', 'alg' => 'EdDSA', 'public_key' => $edPublic],
    ],
    'claims' => $claims,
    'tokens' => array_map(fn ($row) => array_combine(['name', 'token', 'error'], $row), $tokens),
], JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR), "\n";
