using System.CommandLine;
using System.CommandLine.Invocation;
using NativeLora.Cli.Options;

namespace NativeLora.Cli;

/// <summary>Runs a command and turns errors into one line and an exit code: 2 for bad usage or input, 1 for a failure, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.</summary>
internal static class Shell
{
    public const int BadInput = 2;
    public const int Failure = 1;

    /// <summary>Set by Ctrl-C: long work stops at the next point where nothing is left half done. A second Ctrl-C ends the process.</summary>
    public static CancellationToken Cancellation => Signals.Cancellation;

    public static int Run(Command root, string[] args)
    {
        if (args.Length == 0)
            args = ["--help"];
        if (!args[0].StartsWith('-') && root.Subcommands.All(c => c.Name != args[0]))
        {
            var names = root.Subcommands.Select(c => c.Name).ToList();
            Fail($"there is no command \"{args[0]}\"{Suggestion.Of(args[0], names)}; the commands are {string.Join(", ", names)}");
            return BadInput;
        }
        if (args.FirstOrDefault(a => a.Contains('\0', StringComparison.Ordinal)) is { } broken)
        {
            Fail($"\"{broken}\" has a null character, which no name of a file may have");
            return BadInput;
        }
        var parsed = root.Parse(args);
        if (parsed.Errors.Count > 0 && parsed.Action is ParseErrorAction)
        {
            Fail(Usage(parsed));
            return BadInput;
        }
        try
        {
            return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
        }
        catch (InputException e)
        {
            Fail(e.Message);
            return BadInput;
        }
        catch (RunException e)
        {
            Fail(e.Message);
            return Failure;
        }
        catch (Training.TrainingInterruptedException e)
        {
            Fail($"{e.Message}: give the same command again with --resume");
            return Signals.ExitCode;
        }
        catch (Training.RankStoppedException e)
        {
            // Another rank says why.
            return e.IsBadInput ? BadInput : e.IsInterruption ? Signals.ExitCode : Failure;
        }
        catch (OperationCanceledException)
        {
            Fail("interrupted");
            return Signals.ExitCode;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or OutOfMemoryException)
        {
            Fail(e.Message);
            return Failure;
        }
        catch (Exception e)
        {
            Fail($"internal error, please report it: {e.GetType().Name}: {e.Message} {Origin(e)}");
            return Failure;
        }
    }

    // What the parser says names types of .NET, and no way out.
    private static string Usage(ParseResult parsed)
    {
        var (message, command) = (parsed.Errors[0].Message, parsed.CommandResult.Command);
        var quoted = message.Split('\'');
        if (message.StartsWith("Cannot parse argument ", StringComparison.Ordinal) && quoted.Length == 7)
        {
            var wanted = quoted[5] switch
            {
                "System.Int32" => "a whole number",
                "System.UInt64" => "a whole number from 0 on",
                "System.Double" => "a number",
                _ => "another value",
            };
            return $"{quoted[3]} {quoted[1]}: give {wanted}";
        }
        if (message.StartsWith("Unrecognized ", StringComparison.Ordinal) && quoted.Length == 3 && quoted[1].StartsWith('-'))
            return $"there is no option {quoted[1]}{Suggestion.Of(quoted[1], command.Options.Select(o => o.Name))}; \"nativelora {command.Name} --help\" lists them";
        return $"{message.TrimEnd('.')}; see \"nativelora {command.Name} --help\"";
    }

    // A mistake of this program: told in a line too, with its origin.
    private static string Origin(Exception e) =>
        e.StackTrace?.Split('\n').FirstOrDefault(l => l.Contains("NativeLora", StringComparison.Ordinal))?.Trim() ?? "";

    /// <summary>One line to the error stream.</summary>
    public static void Fail(string message) => Console.Error.WriteLine($"nativelora: {message.ReplaceLineEndings(" ")}");
}
