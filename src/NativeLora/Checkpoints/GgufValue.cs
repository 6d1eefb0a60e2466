namespace NativeLora.Checkpoints;

/// <summary>
/// A metadata value. <see cref="Value"/> is a long (any integer up to 63 bits), ulong (above), double, bool or string, or for
/// arrays long[], ulong[], double[], bool[], string[] or, nested, GgufValue[].
/// </summary>
internal sealed class GgufValue(object value)
{
    public object Value { get; } = value;

    public string Kind => Value switch
    {
        long or ulong => "an integer",
        double => "a number",
        bool => "true or false",
        string => "a string",
        _ => "an array",
    };
}
