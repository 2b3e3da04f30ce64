<?php

/* The server side of a chat as comet-server.ru's articles show it: chat.php HOST:PORT KEY NAME TEXT */

[, $address, $password, $_POST['name'], $_POST['text']] = $argv;
[$host, $port] = explode(':', $address);

$user = '15';
$db = 'CometQL_v1';

$link = mysqli_connect($host, $user, $password, $db, (int) $port);
if (!$link) {
    echo 'Could not create a connection to CometQL';
    exit(1);
}

$msg = json_encode(['name' => htmlspecialchars($_POST['name']), 'text' => $_POST['text']]);
$msg = mysqli_real_escape_string($link, $msg);
$query = "INSERT INTO pipes_messages (name, event, message)VALUES('SimplePhpChat', '', '" . $msg . "' );";
mysqli_query($link, $query);

if (mysqli_errno($link) != 0) {
    echo 'Error code: ' . mysqli_errno($link) . ' ' . mysqli_error($link);
    exit(1);
}
echo 'ok ', mysqli_affected_rows($link);
