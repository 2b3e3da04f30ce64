<?php

/*
 * The opcache.preload script of the strict set-up: only the functions that are compiled here may use FFI. php.ini also
 * needs ffi.preload=/usr/local/share/comet/php/comet_ffi.h. See README.md.
 */

declare(strict_types=1);

foreach (['ClientInterface', 'Exception', 'ArgumentException', 'ConnectException', 'TimeoutException', 'UnknownException',
    'RefusedException', 'FileException', 'Client', 'Token'] as $class) {
    opcache_compile_file(__DIR__ . "/src/$class.php");
}
