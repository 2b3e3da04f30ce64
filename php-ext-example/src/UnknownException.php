<?php

declare(strict_types=1);

namespace Comet;

/** The connection was lost before the acknowledgement: published or not, nobody can say. */
class UnknownException extends Exception
{
}
