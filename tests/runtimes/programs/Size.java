/** What the JVM makes of the limits. */
public class Size {
    public static void main(String[] arguments) {
        System.out.println("availableProcessors " + Runtime.getRuntime().availableProcessors());
        System.out.println("maxMemory " + Runtime.getRuntime().maxMemory());
    }
}
