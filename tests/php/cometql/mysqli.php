<?php

/* What scripts do with mysqli: mysqli.php HOST:PORT KEY. Prints one line for each step. */

[, $address, $key] = $argv;
[$host, $port] = explode(':', $address);

$show = static fn(mixed $value) => print json_encode($value, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES) . "\n";

/** The number of the error, and its text. */
function attempt(callable $step): mixed
{
    try {
        return $step();
    } catch (mysqli_sql_exception $error) {
        return [$error->getCode(), $error->getMessage()];
    }
}

$show(attempt(fn() => mysqli_connect($host, '15', 'wrong', 'CometQL_v1', (int) $port)));
$show(attempt(fn() => mysqli_connect($host, 'admin', $key, 'CometQL_v1', (int) $port)));
$show(attempt(fn() => mysqli_connect($host, '15', $key, 'mysql', (int) $port)));

$comet = mysqli_connect($host, '15', $key, 'CometQL_v1', (int) $port);
mysqli_set_charset($comet, 'utf8mb4');
$show([mysqli_get_server_info($comet), mysqli_ping($comet), mysqli_select_db($comet, 'CometQL_v1')]);

mysqli_query($comet, "INSERT INTO users_auth (id, hash) VALUES (42, 'abc=')");
$show([mysqli_affected_rows($comet), mysqli_insert_id($comet)]);
$show(mysqli_query($comet, 'SELECT * FROM users_auth WHERE id IN (42, 43)')->fetch_all(MYSQLI_ASSOC));
$show(mysqli_query($comet, 'SELECT * FROM users_time WHERE id IN (42, 43)')->fetch_all());
mysqli_query($comet, "INSERT INTO users_messages (id, event, message) VALUES (42, 'e', 'ж🚀')");
$show(mysqli_query($comet, 'SELECT event, message FROM users_messages WHERE id = 42')->fetch_all());
mysqli_query($comet, 'DELETE FROM users_messages WHERE id = 42');
$show(mysqli_query($comet, 'SELECT * FROM users_messages WHERE id = 42')->num_rows);
$show(mysqli_query($comet, "SELECT * FROM pipes WHERE name = 'SimplePhpChat'")->fetch_assoc());
$show(array_column(mysqli_query($comet, 'SHOW TABLES')->fetch_all(), 0));

$text = "it's\n\"C:\\new\" 100% ж🚀 \0\x1a";
foreach (['one', $text] as $message) {
    mysqli_query($comet, "INSERT INTO pipes_settings (name, length) VALUES ('history', 2)");
    $escaped = mysqli_real_escape_string($comet, $message);
    mysqli_query($comet, "INSERT INTO pipes_messages (name, event, message) VALUES ('history', 'e', '$escaped')");
}
$show(mysqli_query($comet, "SELECT message FROM pipes_messages WHERE name = 'history'")->fetch_all() === [['one'], [$text]]);

$show(attempt(fn() => mysqli_query($comet, "INSERT INTO pipes (name, users) VALUES ('abc', 1)")));
$show(attempt(fn() => mysqli_query($comet, 'UPDATE pipes SET users = 1')));
$show(attempt(fn() => mysqli_query($comet, "SELECT '" . str_repeat('x', 9000) . "'")));
$show(attempt(fn() => mysqli_prepare($comet, 'SELECT ?')));
$show(attempt(fn() => mysqli_query($comet, 'SELECT 1')->fetch_row()));
mysqli_close($comet);

// A persistent connection is used again after a new login on the same connection.
$first = mysqli_connect("p:$host", '15', $key, 'CometQL_v1', (int) $port);
$number = mysqli_thread_id($first);
mysqli_close($first);
$second = mysqli_connect("p:$host", '15', $key, 'CometQL_v1', (int) $port);
$show([mysqli_thread_id($second) === $number, mysqli_query($second, 'SELECT DATABASE()')->fetch_row()]);
