<?php

/*
 * A page whose readers see at once what any of them sends. PHP only answers requests: the browsers wait at the
 * daemon, behind the same nginx (../../nginx.conf).
 */

declare(strict_types=1);

require __DIR__ . '/../../autoload.php';

$error = null;
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    try {
        $text = is_string($_POST['text'] ?? null) ? $_POST['text'] : '';
        // Nobody waits for a page longer than this because of Comet.
        $id = (new Comet\Client('unix:?timeout_ms=2000'))->publish('news', $text);
        // While the daemon restarts the message waits in the spool.
        header('X-Message-Id: ' . ($id ?? 'spooled'));
        header('Location: ' . strtok($_SERVER['REQUEST_URI'], '?'), true, 303);
        exit;
    } catch (Comet\Exception $e) {
        http_response_code(503);
        $error = $e->getMessage();
    }
}
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>News</title>
<h1>News</h1>
<?php if ($error !== null): ?>
<p role="alert">Not published: <?= htmlspecialchars($error) ?></p>
<?php endif ?>
<form method="post">
  <input name="text" required autofocus>
  <button>Send</button>
</form>
<ul id="news"></ul>
<script src="/comet.js"></script>
<script>
  Comet.subscribe('news', {
    message(message) {
      const item = document.createElement('li');
      item.textContent = message.data;
      document.getElementById('news').prepend(item);
    },
  });
</script>
</html>
