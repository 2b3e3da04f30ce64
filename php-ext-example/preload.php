<?php

/*
 * opcache.preload for a strict set-up: FFI stays closed to everything but the functions compiled here. Beside it
 * php.ini has ffi.preload=/usr/local/share/comet/php/comet_ffi.h; see README.md.
 */

declare(strict_types=1);

foreach (['ClientInterface', 'Exception', 'ArgumentException', 'ConnectException', 'TimeoutException', 'UnknownException',
    'RefusedException', 'FileException', 'Client', 'Token'] as $class) {
    opcache_compile_file(__DIR__ . "/src/$class.php");
}
