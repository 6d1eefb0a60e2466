using System.Reflection;
using System.Runtime.CompilerServices;
using NativeLora.Hosting;

namespace NativeLora.Tests.Hosting;

/// <summary>
/// The public members of the libraries, compared with <c>PublicApi.txt</c>, so that no change of them goes unnoticed. A change that is
/// wanted is taken over by <c>NATIVELORA_UPDATE_API=1 dotnet test --filter PublicApi</c> and is then seen in the diff.
/// </summary>
public sealed class PublicApiTests
{
    private const string Update = "NATIVELORA_UPDATE_API";

    [Fact]
    public void The_public_api_is_the_one_that_is_written_down()
    {
        var path = Repository.File("tests", "NativeLora.Tests", "PublicApi.txt");
        var lines = new[] { typeof(Classifier), typeof(NativeLora.Extensions.NativeLoraServices), typeof(NativeLora.Imaging.PictureDecoder), typeof(NativeLora.Devices.Cuda.CudaDevice) }
            .SelectMany(t => Describe(t.Assembly)).ToList();
        if (Environment.GetEnvironmentVariable(Update) == "1")
            File.WriteAllText(path, string.Join('\n', lines) + "\n");
        var known = File.Exists(path) ? File.ReadAllLines(path) : [];
        string[] changes = [.. lines.Except(known).Select(l => $"+ {l}"), .. known.Except(lines).Select(l => $"- {l}")];
        Assert.True(changes.Length == 0,
            $"the public API differs from tests/NativeLora.Tests/PublicApi.txt; if that is wanted: {Update}=1 dotnet test -c Release tests/NativeLora.Tests --filter PublicApi\n{string.Join('\n', changes.Take(40))}");
    }

    private static IEnumerable<string> Describe(Assembly assembly) => assembly.GetExportedTypes()
        .SelectMany(type => Members(type).Prepend($"{Kind(type)} {Name(type)}{Bases(type)}").Select(line => line.TrimEnd()))
        .Order(StringComparer.Ordinal);

    private static IEnumerable<string> Members(Type type)
    {
        if (type.IsEnum)
            return Enum.GetNames(type).Select(n => $"{Name(type)}.{n} = {Convert.ToInt64(Enum.Parse(type, n))}");
        if (typeof(Delegate).IsAssignableFrom(type))
            return [];
        const BindingFlags Own = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
        return type.GetMembers(Own).Where(m => !IsMadeByCompiler(m)).Select(m => m switch
        {
            ConstructorInfo c when IsVisible(c) => $"{Name(type)}({Parameters(c)})",
            MethodInfo m0 when IsVisible(m0) && !m0.IsSpecialName => $"{Static(m0)}{Name(type)}.{m0.Name}{Arguments(m0)}({Parameters(m0)}) : {Name(m0.ReturnType)}",
            PropertyInfo p when p.GetAccessors(true).Any(IsVisible) => $"{Static(p.GetAccessors(true)[0])}{Name(type)}.{p.Name} : {Name(p.PropertyType)}{Accessors(p)}",
            FieldInfo f when f.IsPublic || f.IsFamily => $"{(f.IsLiteral ? "const " : f.IsStatic ? "static " : "")}{Name(type)}.{f.Name} : {Name(f.FieldType)}",
            _ => "",
        }).Where(line => line.Length > 0);
    }

    // Of a record: what the compiler makes of its properties says nothing that they do not.
    private static bool IsMadeByCompiler(MemberInfo member) =>
        member.Name is "Equals" or "GetHashCode" or "ToString" or "EqualityContract" or "PrintMembers" or "Deconstruct" or "Finalize" || member.Name.Contains('<')
        || (member is MethodBase method && method.IsDefined(typeof(CompilerGeneratedAttribute)) && !method.IsSpecialName)
        || (member is ConstructorInfo { IsFamily: true } copy && copy.GetParameters() is [{ Name: "original" }]);

    private static bool IsVisible(MethodBase method) => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly;

    private static string Static(MethodBase method) => method.IsStatic ? "static " : "";

    private static string Accessors(PropertyInfo property) => string.Concat(
        property.GetMethod is { } get && IsVisible(get) ? " get" : "",
        property.SetMethod is not { } set || !IsVisible(set) ? "" : set.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(IsExternalInit)) ? " init" : " set");

    private static string Parameters(MethodBase method) => string.Join(", ", method.GetParameters().Select(p =>
        $"{(p.IsOut ? "out " : p.IsIn ? "in " : "")}{Name(p.ParameterType)} {p.Name}{(p.HasDefaultValue ? $" = {p.DefaultValue ?? "default"}" : "")}"));

    private static string Arguments(MethodInfo method) => method.IsGenericMethod ? $"<{string.Join(", ", method.GetGenericArguments().Select(a => a.Name))}>" : "";

    private static string Kind(Type type) => type.IsEnum ? "enum" : type.IsInterface ? "interface" : type.IsValueType ? "struct"
        : type is { IsAbstract: true, IsSealed: true } ? "static class" : type.IsAbstract ? "abstract class" : type.IsSealed ? "sealed class" : "class";

    private static string Bases(Type type)
    {
        if (type.IsEnum)
            return "";
        Type?[] bases = [type.BaseType is { } parent && parent != typeof(object) && parent != typeof(ValueType) ? parent : null, .. type.GetInterfaces().Where(i => i.IsPublic && i.Name != "IEquatable`1").OrderBy(Name, StringComparer.Ordinal)];
        return bases.OfType<Type>().ToArray() is { Length: > 0 } some ? $" : {string.Join(", ", some.Select(Name))}" : "";
    }

    private static string Name(Type type)
    {
        if (type.IsGenericParameter)
            return type.Name;
        if (type.IsByRef || type.IsArray || type.IsPointer)
            return Name(type.GetElementType()!) + (type.IsByRef ? "&" : type.IsPointer ? "*" : "[]");
        var name = type.IsNested ? $"{Name(type.DeclaringType!)}.{type.Name}" : type.Namespace is { } space && space.StartsWith("System", StringComparison.Ordinal) ? type.Name : $"{type.Namespace}.{type.Name}";
        return type.IsGenericType ? $"{name.Split('`')[0]}<{string.Join(", ", type.GetGenericArguments().Select(Name))}>" : name;
    }
}
