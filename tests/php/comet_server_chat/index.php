<?php
/* A chat as comet-server.ru's articles describe it. The tests tell the addresses of the daemon in the URL. */
$comet = htmlspecialchars($_GET['comet']);
$sql = (int) $_GET['sql'];
$script = htmlspecialchars($_GET['script'] ?? "//$comet/CometServerApi.js");
?>
<!DOCTYPE html>
<html>
<head>
  <meta charset="utf-8">
  <title>Chat</title>
  <link rel="icon" href="data:,">
  <script src="<?= $script ?>"></script>
  <style>
    body { font: 16px sans-serif; max-width: 30em; margin: 2em auto; }
    #chat { border: 1px solid #ccc; min-height: 12em; padding: 1em; margin-bottom: 1em; }
    input, textarea { display: block; width: 100%; box-sizing: border-box; margin-bottom: .5em; }
  </style>
</head>
<body>
  <h1>Chat</h1>
  <div id="chat"></div>
  <input type="text" id="name" placeholder="Your name">
  <textarea id="text" placeholder="Send a message to the chat"></textarea>
  <button id="send" onclick="send()">Send</button>
  <script>
    function send() {
      const form = new URLSearchParams({ name: document.getElementById('name').value, text: document.getElementById('text').value });
      fetch('chat.php?sql=<?= $sql ?>', { method: 'POST', body: form });
      document.getElementById('text').value = '';
    }

    CometServer().subscription('SimplePhpChat', function (event) {
      const line = document.createElement('p');
      line.innerHTML = '<b>' + event.data.name + '</b> <span class="text">' + event.data.text + '</span>';
      document.getElementById('chat').append(line);
    });
    CometServer().start({ dev_id: 15, node: '<?= $comet ?>' });
  </script>
</body>
</html>
