<?php

declare(strict_types=1);

namespace Comet;

/** The connection was lost before the acknowledgement. Whether the message was published is unknown. */
class UnknownException extends Exception
{
}
