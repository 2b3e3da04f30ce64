<?php

declare(strict_types=1);

namespace Comet;

/** No connection to the daemon. Nothing was published. */
class ConnectException extends Exception
{
}
