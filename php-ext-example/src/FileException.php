<?php

declare(strict_types=1);

namespace Comet;

/** The channel's file could not be touched or written. */
class FileException extends Exception
{
}
