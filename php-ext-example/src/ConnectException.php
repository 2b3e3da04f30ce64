<?php

declare(strict_types=1);

namespace Comet;

/** The daemon could not be reached. Nothing was published. */
class ConnectException extends Exception
{
}
