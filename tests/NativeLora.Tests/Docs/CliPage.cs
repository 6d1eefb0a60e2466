using System.CommandLine;
using System.Globalization;
using System.Text;

namespace NativeLora.Tests.Docs;

/// <summary>docs/cli.md, written from the definitions of the commands.</summary>
internal static class CliPage
{
    public static string Text()
    {
        var page = new StringBuilder();
        page.Append("# The command line\n\n");
        page.Append("All commands and options of `nativelora`. This page is written from their definitions by a test ");
        page.Append("(`NATIVELORA_UPDATE_DOCS=1 dotnet test -c Release tests/NativeLora.Tests --filter CliPage`); `nativelora COMMAND --help` says the same.\n\n");
        page.Append("Exit codes: 0 done; 1 a failure while running; 2 bad usage or input; 130 stopped by Ctrl-C or SIGTERM. ");
        page.Append("An error is one line on the error stream that begins with `nativelora: `. With `--json` the standard output is one JSON document and nothing else.\n\n");
        foreach (var command in DocsCommand.Definitions.Values)
            page.Append(CultureInfo.InvariantCulture, $"- [{command.Name}](#{command.Name}): {command.Description}\n");
        foreach (var command in DocsCommand.Definitions.Values)
            Append(page, command);
        return page.ToString();
    }

    private static void Append(StringBuilder page, Command command)
    {
        page.Append(CultureInfo.InvariantCulture, $"\n## {command.Name}\n\n{command.Description}\n\n");
        page.Append(CultureInfo.InvariantCulture, $"Usage: `nativelora {command.Name}{string.Concat(command.Arguments.Select(Usage))} [options]`\n");
        if (command.Arguments.Count > 0)
        {
            page.Append("\n| argument | |\n|---|---|\n");
            foreach (var argument in command.Arguments)
                page.Append(CultureInfo.InvariantCulture, $"| `{argument.Name}` | {Cell(argument.Description ?? "")} |\n");
        }
        page.Append("\n| option | default | |\n|---|---|---|\n");
        foreach (var option in command.Options.Where(o => !o.Hidden))
        {
            var names = string.Join(", ", option.Aliases.Prepend(option.Name).Select(n => $"`{n}`"));
            var value = option.ValueType == typeof(bool) ? "" : $" *{Cell(option.HelpName ?? "VALUE")}*";
            page.Append(CultureInfo.InvariantCulture, $"| {names}{value} | {Default(option)} | {Cell(option.Description ?? "")}{(option.Required ? " (required)" : "")} |\n");
        }
    }

    private static string Usage(Argument argument) => argument.Arity.MaximumNumberOfValues > 1 ? $" {argument.Name}…" : $" {argument.Name}";

    private static string Default(Option option)
    {
        if (!option.HasDefaultValue || option.ValueType == typeof(bool))
            return "";
        var value = Convert.ToString(option.GetDefaultValue(), CultureInfo.InvariantCulture);
        return string.IsNullOrEmpty(value) || option.ValueType.IsArray ? "" : $"`{value}`";
    }

    private static string Cell(string text) => text.Replace("|", "\\|", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal);
}
