<?php

/* What scripts do with PDO: pdo.php HOST:PORT KEY EMULATE, with EMULATE 0 for prepared statements of the server. */

[, $address, $key, $emulate] = $argv;
[$host, $port] = explode(':', $address);

$comet = new PDO("mysql:host=$host;port=$port;dbname=CometQL_v1;charset=utf8", '15', $key, [
    PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
    PDO::ATTR_EMULATE_PREPARES => (bool) $emulate,
]);
$insert = $comet->prepare('INSERT INTO pipes_messages (name, event, message) VALUES (:name, :event, :message)');
foreach (["it's", '{"a":"\\\\"}', "two\nlines"] as $message) {
    $insert->execute(['name' => 'pdo', 'event' => 'e', 'message' => $message]);
}
$user = $comet->prepare('INSERT INTO users_auth (id, hash) VALUES (?, ?)');
$user->execute([7, 'hash7']);
echo $user->rowCount(), ' ', $comet->lastInsertId(), "\n";
$comet->beginTransaction();
$comet->commit();
$rows = $comet->query('SELECT * FROM users_auth WHERE id = 7')->fetchAll(PDO::FETCH_ASSOC);
echo json_encode($rows), "\n";
try {
    $comet->query('SELECT * FROM nowhere WHERE id = 7');
} catch (PDOException $error) {
    echo json_encode([$error->errorInfo[1], $error->errorInfo[0]]), "\n";
}
