<?php
/* The server side of the chat. */

$link = mysqli_connect('127.0.0.1', '15', getenv('COMET_KEY'), 'CometQL_v1', (int) $_GET['sql']);
$message = ['name' => htmlspecialchars($_POST['name']), 'text' => htmlspecialchars($_POST['text'])];
$message = mysqli_real_escape_string($link, json_encode($message));
mysqli_query($link, "INSERT INTO pipes_messages (name, event, message)VALUES('SimplePhpChat', '', '$message' );");
